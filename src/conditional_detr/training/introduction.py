"""Log data, categories, network and warnings before the first step of a run, and draw the first augmented images."""

import logging
from collections.abc import Iterator

import numpy as np

from conditional_detr.data.check import described, tell_problems
from conditional_detr.errors import InputError
from conditional_detr.record import Categories
from conditional_detr.runs import RunFolder
from conditional_detr.text import counted
from conditional_detr.training.run_plots import draw_augmented
from conditional_detr.training.setup import Setup
from conditional_detr.training.validation import Validation

DRAWN_IMAGES, DRAWN_EPOCHS = 4, 4  # on the page of augmented images

logger = logging.getLogger(__name__)
FEW_IMAGES = 10_000  # rule of thumb; COCO has 118,287


def introduce(setup: Setup, validation: Validation | None) -> None:
    """Log an overview of a run, with warnings about its data."""
    train, val, settings, model = setup.train_data, setup.val_data, setup.settings.model, setup.model
    logger.info(f"training on {described(train)}")
    if validation is None:
        logger.info("without evaluation (data.val=none), so the newest model is kept")
    else:
        logger.info(f"evaluating on {described(validation.data)}, {validation.max_dets} detections per image")
    for row in category_table(train.categories):
        logger.info(row)
    from_nothing = settings.backbone_weights is None and settings.init_from is None
    if isinstance(settings.backbone, str) and from_nothing and len(train) < FEW_IMAGES:
        logger.warning(
            f"the backbone starts from random weights and there are only {len(train)} training images: expect a low AP; "
            f"give ImageNet weights with model.backbone_weights=imagenet, or take the preset conditional-detr_lite0_photos"
        )
    for data in (train, val):
        if data is not None:
            tell_problems(data, logger)
    for text in _without_effect(setup):
        logger.warning(text)
    if setup.settings.train.steps:
        epochs = setup.length.steps / setup.steps_per_epoch
        logger.info(f"the run is {setup.length.steps} steps long (train.steps), which is {epochs:.3g} epochs")
    if setup.settings.train.minutes and setup.progress.plan is None:
        logger.info(f"the first steps decide the length of the run of {setup.settings.train.minutes:g} minutes")
    mosaics = setup.settings.data.mosaic > 0
    for text in setup.warnings:
        logger.warning(text)
    if mosaics and setup.length.decided:
        logger.log(
            logging.INFO if setup.mosaic_epochs else logging.WARNING,
            f"mosaics in the first {setup.mosaic_epochs} of {setup.length.epochs} epochs (data.mosaic_until)",
        )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    processes = f"{setup.processes} x {setup.accelerator.device.type}"
    logger.info(f"{everything / 1e6:.2f} million parameters, {trained / 1e6:.2f} million train; {processes}")


def _without_effect(setup: Setup) -> Iterator[str]:
    """Yield warnings about settings that make a run of this length useless, or that can't act in it."""
    train, length = setup.settings.train, setup.length
    steps = length.steps
    if not length.decided:
        return
    if not train.lr:
        yield "train.lr=0: the transformer learns nothing; leave it out, or give a rate"
    if train.warmup_steps >= steps > 1:
        yield (
            f"train.warmup_steps={train.warmup_steps} is not less than the {steps} steps of the run, which never reaches train.lr; "
            f"set train.warmup_steps={steps // 10}"
        )
    evaluations = length.models(0)
    if setup.val_data is not None and train.patience and train.patience >= evaluations:
        every = setup.settings.evaluation.every
        more = f", or evaluation.every={every // 2}" if every > 1 else ""
        yield (
            f"train.patience={train.patience} can't end the run early, because it has {counted(evaluations, 'evaluation')}; set it lower{more}"
        )
    if train.ema_decay and not train.ema_ramp and train.ema_decay**steps > 0.5:
        yield (
            f"train.ema_decay={train.ema_decay:g}: after {steps} steps the averaged weights, which are evaluated and saved, are mostly "
            f"those of the start; set train.ema_ramp={max(steps // 10, 1)}, or a lower ema_decay"
        )


def show_augmented(setup: Setup, run: RunFolder) -> None:
    """Draw the first training images as the network sees them in epochs from the first to the last, unless already drawn.

    Raises ``InputError`` for an image that can't be used. Other failures are logged, because no picture may end a run.
    """
    if run.augmented.exists():
        return
    last = max(setup.length.epochs if setup.length.decided else 0, DRAWN_EPOCHS) - 1
    epochs: list[int] = np.linspace(0, last, DRAWN_EPOCHS).round().astype(int).tolist()
    try:
        run.plots.mkdir(exist_ok=True)
        draws = setup.first_draws(DRAWN_IMAGES, epochs)
        draw_augmented(draws, epochs, setup.train_data.categories, run.augmented)
    except InputError:
        raise
    except Exception as error:
        logger.warning(f"{run.augmented} can't be written ({error}); training goes on without it")
    else:
        logger.info(f"the first images as the network sees them: {run.augmented}")


def category_table(categories: Categories) -> list[str]:
    """Return the rows of a table of the categories: logit index, category id and name."""
    rows = zip(range(len(categories)), categories.ids, categories.names, strict=True)
    return ["logit  category id  name", *(f"{i:5d}  {id_:11d}  {name}" for i, id_, name in rows)]
