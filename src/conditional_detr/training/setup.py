"""Set up the parts of a run: data, network, loss and optimizer."""

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from conditional_detr.checkpoints.backbone_weights import load_backbone_weights
from conditional_detr.checkpoints.initialization import initialize
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.config import Settings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.check import read_checked
from conditional_detr.data.fingerprint import Fingerprint, fingerprint
from conditional_detr.data.loading import (
    Batch,
    Sample,
    TrainingBatches,
    training_batches,
    training_images,
    training_order,
)
from conditional_detr.errors import InputError, SettingsError
from conditional_detr.input_size import InputSize
from conditional_detr.loss.criterion import Criterion, build_criterion
from conditional_detr.model.ablation import ablate
from conditional_detr.model.network import DETR, ConditionalDETR, build_model
from conditional_detr.record import ModelRecord
from conditional_detr.runs import with_batch_size
from conditional_detr.training.averaging import averaging
from conditional_detr.training.batch_size import choose_batch_size
from conditional_detr.training.length import LONGEST, RunLength, length_of
from conditional_detr.training.optimizer import build_optimizer
from conditional_detr.training.states import Progress, Terms, Trained
from conditional_detr.training.trackers import tracked

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Setup(Trained):
    """The parts of a run.

    wrapped: the network as wrapped by accelerate, for the forward pass. prepared_optimizer: AdamW as wrapped by accelerate, for
    the update. val_data: None for a run without evaluation.
    """

    settings: Settings
    train_data: Annotations
    val_data: Annotations | None
    warnings: list[str]
    record: ModelRecord
    wrapped: nn.Module
    criterion: Criterion
    prepared_optimizer: Optimizer

    @property
    def processes(self) -> int:
        return self.accelerator.num_processes

    @property
    def batch_size(self) -> int:
        """Number of images per process and forward pass."""
        assert self.settings.train.batch_size != "auto"  # set_up replaced it
        return self.settings.train.batch_size

    @property
    def images_per_step(self) -> int:
        """Number of images in an optimizer step, over all processes."""
        return self.batch_size * self.settings.train.accumulate * self.processes

    @property
    def evaluated_model(self) -> DETR:
        """The network to evaluate and save: the averaged one if there is one."""
        return cast(DETR, self.averaged.module) if self.averaged is not None else self.model

    @cached_property
    def steps_per_epoch(self) -> int:
        return self._order().steps_per_epoch

    @property
    def length(self) -> RunLength:
        """Length of the run, as far as it is decided."""
        given = length_of(self.settings, self.steps_per_epoch, self.val_data is not None)
        if not self.settings.train.minutes:
            return given
        plan = self.progress.plan
        return given.model_copy(update={"steps": LONGEST, "every": LONGEST}) if plan is None else plan.length

    @property
    def mosaic_epochs(self) -> int:
        """Number of epochs with mosaics, if there are mosaics: whole epochs, rounded down."""
        return self.length.first_epochs(self.settings.data.mosaic_until)

    @cached_property
    def data(self) -> Fingerprint:
        """Fingerprint of the data. It takes a look at every image file, so only the main process should ask for it."""
        return fingerprint(self.train_data, self.val_data)

    def terms(self) -> Terms:
        """Return what the run has in common with its states."""
        shape = {
            "processes": self.processes,
            "images per step": self.images_per_step,
            "training images": len(self.train_data),
            "categories": len(self.train_data.categories),
            "queries": self.settings.model.queries,
            "query groups": self.settings.train.query_groups,
            "averaged models": int(self.averaged is not None),
        }
        return Terms(shape, self.settings, self.data)

    def batches(self) -> tuple[Generator[Batch], int]:
        """Return the batches of this process from the current step on, and the number of steps per epoch."""
        train = self.settings.train
        return training_batches(
            self.train_data,
            self.settings.data,
            self.batch_size,
            train.accumulate,
            train.seed,
            self.accelerator.process_index,
            self.processes,
            start_step=self.progress.step,
            mosaic_epochs=self.mosaic_epochs,
            leave_out=self.progress.left_out if self.settings.data.on_error == "skip" else None,
        )

    def _order(self) -> TrainingBatches:
        train = self.settings.train
        return training_order(
            self.train_data,
            self.settings.data,
            self.batch_size,
            train.accumulate,
            train.seed,
            processes=self.processes,
        )

    def first_draws(self, images: int, epochs: Sequence[int]) -> Iterator[list[Sample]]:
        """Yield what the network sees of each of the first images of the run in these epochs.

        Raises ``InputError`` for an image that can't be used.
        """
        data, train = self.settings.data, self.settings.train
        augmented = training_images(self.train_data, data, train.seed, self.mosaic_epochs)
        first = dict.fromkeys(
            self._order().order(0).reshape(-1).tolist()
        )  # indices repeat if there are fewer images than in a step
        for index in islice(first, images):
            try:
                yield augmented.draws(index, epochs)
            except InputError:
                if data.on_error != "skip":
                    raise


def make_accelerator(settings: Settings) -> Accelerator:
    """Return the accelerator for a run. Raises ``SettingsError`` for a precision that the machine does not support."""
    train = settings.train
    if train.mixed_precision == "fp16" and not torch.accelerator.is_available():
        raise SettingsError("train.mixed_precision=fp16 needs a GPU; leave it out or use bf16")
    # Without this reset, a second run in the same program could not change the precision.
    AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
    accelerator = Accelerator(
        # Without this, processes that torchrun starts on a machine without accelerator would train independently.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=train.mixed_precision,
        log_with=[*tracked(settings)] or None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=False)],
    )
    # Only the main process logs.
    level = logging.NOTSET if accelerator.is_main_process else logging.CRITICAL + 1
    logging.getLogger("conditional_detr.training").setLevel(level)
    return accelerator


def set_up(settings: Settings, accelerator: Accelerator, from_state: bool) -> Setup:
    """Set up the parts of a run. from_state: skip loading weights, because a state will provide them.

    Raises ``DataError`` for invalid data, ``CheckpointError`` for weights that can't be opened or do not fit, and
    ``SettingsError`` when ``train.batch_size=auto`` finds no room for a single image.
    """
    with accelerator.main_process_first():  # the others find the headers that it remembers
        checked = read_checked(settings.data, settings.model.queries)
    train_data, val_data = checked.train, checked.val
    settings = settings.resolved()
    train, data = settings.train, settings.data
    record = ModelRecord(
        settings.model.architecture(),
        train_data.categories,
        InputSize((data.eval_short_side, data.eval_max_size)),
    )
    set_seed(train.seed)
    model = _network(settings, record, from_state)
    criterion = build_criterion(settings.loss, model.softmax)
    if train.batch_size == "auto":
        settings = with_batch_size(settings, choose_batch_size(model, criterion, settings, train_data, accelerator))
        train = settings.train
    set_seed(train.seed, device_specific=True)  # dropout differs between processes, initial weights do not
    assert train.batch_size != "auto"
    images_per_step = train.batch_size * train.accumulate * accelerator.num_processes
    optimizer = build_optimizer(model, train, _learning_rate_scale(settings, images_per_step))
    averaged = None
    if train.ema_decay:
        averaged = AveragedModel(model, multi_avg_fn=averaging(train.ema_decay, train.ema_ramp), use_buffers=True)
        averaged.to(accelerator.device)
    synchronized = _with_synchronized_norm(model, settings, accelerator)
    wrapped, prepared_optimizer = cast("tuple[nn.Module, Optimizer]", accelerator.prepare(synchronized, optimizer))
    return Setup(
        settings=settings,
        accelerator=accelerator,
        train_data=train_data,
        val_data=val_data,
        warnings=checked.warnings,
        record=record,
        # After conversion to SyncBatchNorm and the move to the device, this is the network that trains.
        model=cast(DETR, accelerator.unwrap_model(wrapped)),
        wrapped=wrapped,
        criterion=criterion,
        optimizer=optimizer,
        prepared_optimizer=prepared_optimizer,
        averaged=averaged,
        progress=Progress(),
    )


def _network(settings: Settings, record: ModelRecord, from_state: bool) -> DETR:
    start = settings.model
    model = build_model(start, len(record.categories))
    if not from_state:
        if start.backbone_weights is not None:
            load_backbone_weights(model.backbone, record.architecture, start.backbone_weights)
        if start.init_from is not None:
            opened = open_checkpoint(start.init_from, start.dilation, headless=True)
            for text in initialize(model, record.architecture, record.categories, opened, start.init_from):
                logger.info(text)
    assert isinstance(start.frozen_stages, int)  # resolved
    model.backbone.freeze(start.frozen_stages)
    if isinstance(model, ConditionalDETR):
        ablate(model.decoder, start.ablate)
        model.decoder.train_groups(settings.train.query_groups)
    model.set_gradient_checkpointing(settings.train.gradient_checkpointing)
    return model


def _with_synchronized_norm(model: DETR, settings: Settings, accelerator: Accelerator) -> nn.Module:
    """Synchronize trained batch norm over all processes; on a CPU, log a warning instead."""
    if accelerator.num_processes == 1 or settings.model.batch_norm != "trained":
        return model
    if accelerator.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    logger.warning("batch norm is not synchronized between processes on a CPU: statistics are those of one process")
    return model


def _learning_rate_scale(settings: Settings, images_per_step: int) -> float:
    train = settings.train
    if images_per_step == train.base_batch_size:
        return 1.0
    if train.scale_lr:
        return images_per_step / train.base_batch_size
    logger.warning(
        f"{images_per_step} images per step, but train.lr={train.lr:g} is chosen for {train.base_batch_size}; "
        f"train.scale_lr=true scales it to {train.lr * images_per_step / train.base_batch_size:.2g}"
    )
    return 1.0
