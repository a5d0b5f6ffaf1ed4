"""Log data, categories, network and warnings before the first step of a run."""

import logging

from conditional_detr.data.check import described, tell_problems
from conditional_detr.record import Categories
from conditional_detr.training.setup import Setup

logger = logging.getLogger(__name__)
FEW_IMAGES = 10_000  # rule of thumb; COCO has 118,287


def introduce(setup: Setup, max_dets: int) -> None:
    """Log an overview of a run, with warnings about its data. max_dets: detections per image in evaluations."""
    train, val, settings, model = setup.train_data, setup.val_data, setup.settings.model, setup.model
    logger.info(f"training on {described(train)}")
    if val is not None:
        logger.info(f"evaluating on {described(val)}, {max_dets} detections per image")
    for row in category_table(train.categories):
        logger.info(row)
    from_nothing = settings.backbone_weights is None and settings.init_from is None
    if isinstance(settings.backbone, str) and from_nothing and len(train) < FEW_IMAGES:
        logger.warning(
            f"the backbone starts from random weights and there are only {len(train)} training images: expect a low AP; "
            f"give ImageNet weights with model.backbone_weights=FILE"
        )
    for data in (train, val):
        if data is not None:
            tell_problems(data, logger)
    for text in setup.warnings:
        logger.warning(text)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    processes = f"{setup.processes} x {setup.accelerator.device.type}"
    logger.info(f"{everything / 1e6:.2f} million parameters, {trained / 1e6:.2f} million train; {processes}")


def category_table(categories: Categories) -> list[str]:
    """Return the rows of a table of the categories: logit index, category id and name."""
    rows = zip(range(len(categories)), categories.ids, categories.names, strict=True)
    return ["logit  category id  name", *(f"{i:5d}  {id_:11d}  {name}" for i, id_, name in rows)]
