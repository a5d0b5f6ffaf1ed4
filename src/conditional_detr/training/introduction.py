"""Log data, categories, network and warnings before the first step of a run."""

import logging

from conditional_detr.data.check import training_warnings
from conditional_detr.record import Categories
from conditional_detr.training.setup import Setup
from conditional_detr.training.validation import Validation

logger = logging.getLogger(__name__)


def introduce(setup: Setup, validation: Validation | None) -> None:
    """Log an overview of a run, with warnings about its data."""
    train, val, settings, model = setup.train_data, setup.val_data, setup.settings.model, setup.model
    evaluation = (
        "without evaluation (data.val=none), so the newest model is kept"
        if validation is None
        else f"evaluating on {len(validation.data)} ({validation.data.source}, {validation.max_dets} detections per image)"
    )
    logger.info(f"training on {len(train)} images with {train.usable.sum()} objects ({train.source}), {evaluation}")
    logger.info(category_table(train.categories))
    from_nothing = settings.backbone_weights is None and settings.init_from is None
    random_backbone = isinstance(settings.backbone, str) and from_nothing
    for text in training_warnings(train, val, settings.queries, random_backbone):
        logger.warning(text)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    processes = f"{setup.processes} x {setup.accelerator.device.type}"
    logger.info(f"{everything / 1e6:.2f} million parameters, {trained / 1e6:.2f} million train; {processes}")


def category_table(categories: Categories) -> str:
    """Return a table with one line per category: logit index, category id and name."""
    rows = zip(range(len(categories)), categories.ids, categories.names, strict=True)
    return "\n".join(["logit  category id  name", *(f"{i:5d}  {id_:11d}  {name}" for i, id_, name in rows)])
