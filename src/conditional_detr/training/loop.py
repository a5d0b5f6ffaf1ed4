"""The training loop: one optimizer step after another, an evaluation after an epoch, a state to go on from."""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from conditional_detr.allocator import keep_freed_memory
from conditional_detr.checkpoints.backbone_weights import load_backbone_weights
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.initialisation import initialise
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.config import Settings
from conditional_detr.data.check import check_same_categories
from conditional_detr.data.coco import read_split
from conditional_detr.data.loading import Batch, training_batches
from conditional_detr.errors import InputError, NonFiniteError
from conditional_detr.loss.criterion import TERMS, Losses, build_criterion
from conditional_detr.model.ablation import ablate
from conditional_detr.model.network import DETR, ConditionalDETR, build_model
from conditional_detr.structures import Predictions
from conditional_detr.training.introduction import introduce
from conditional_detr.training.optimizer import build_optimizer, learning_rate_factor, set_learning_rate
from conditional_detr.training.report import Reporter, TensorBoard
from conditional_detr.training.run_folder import Metrics, RunFolder, best_evaluation, create_run, open_run, read_metrics
from conditional_detr.training.states import Progress, check_shape, load_state, save_state
from conditional_detr.training.stopping import StopRequest, stop_requests
from conditional_detr.training.validation import Validation


@dataclass(frozen=True)
class Summary:
    """How a run ended. finished: False when it was asked to stop; best: the evaluation record with the highest AP."""

    run: RunFolder
    finished: bool
    step: int
    best: Metrics | None


def train(settings: Settings, reporter: Reporter | None = None) -> Summary:
    """Train a model from the beginning, in a new run folder. Raises ``InputError`` for data or settings at fault."""
    return _Training(settings, None, reporter or Reporter()).run()


def resume(run: Path, reporter: Reporter | None = None, overrides: Sequence[str] = ()) -> Summary:
    """Go on with an interrupted run: weights, optimizer, random states and data as if nothing had happened.

    overrides: ``key=value`` settings that may change within a run; its config.yaml takes them over. Raises
    ``InputError`` for others, when ``run`` is not a run folder, or with other data or another number of processes.
    """
    folder, settings = open_run(run, overrides)
    training = _Training(settings, folder, reporter or Reporter())
    if overrides and training.main:
        if training.state is not None:
            # Before the config is changed.
            check_shape(training.state, training._shape())  # pyright: ignore[reportPrivateUsage]
        folder.write_config(settings)
    return training.run()


def is_main_process() -> bool:
    """Whether this is the one process of a run that prints and writes."""
    return PartialState().is_main_process


class _Training:
    """Everything a run needs, put together once; ``run`` is the loop."""

    def __init__(self, settings: Settings, run: RunFolder | None, reporter: Reporter) -> None:
        train = settings.train
        if train.mixed_precision == "fp16" and not torch.accelerator.is_available():
            raise InputError("train.mixed_precision=fp16 needs a GPU; leave it out or use bf16")
        # Without this, a program that trains twice could not change the precision.
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
        self.accelerator = Accelerator(
            # Without this, torchrun on a machine without accelerator would start processes that ignore each other.
            cpu=not torch.accelerator.is_available(),
            mixed_precision=train.mixed_precision,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=False)],
        )
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        self.main = self.accelerator.is_main_process
        self.reporter = reporter if self.main else Reporter()
        self.processes = self.accelerator.num_processes
        self.resuming = run is not None
        self.state = None if run is None else run.newest_state()

        self.train_data = read_split(settings.data, "train")
        self.val_data = read_split(settings.data, "val")
        check_same_categories(self.train_data, self.val_data)
        self.settings = settings.model_copy(update={"model": settings.model.resolved()})

        set_seed(train.seed)
        self.model = self._build()
        set_seed(train.seed, device_specific=True)  # dropout differs between processes, initial weights do not
        self.criterion = build_criterion(settings.loss, self.model.softmax)
        self.progress = Progress()
        self.global_batch = train.batch_size * train.accumulate * self.processes
        self.optimizer = build_optimizer(self.model, train, self._learning_rate_scale())
        self.averaged: AveragedModel | None = None
        if train.ema_decay:
            average = get_ema_multi_avg_fn(train.ema_decay)
            self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
            self.averaged.to(self.accelerator.device)
        wrapped: Any = self.model
        if self.processes > 1 and self.settings.model.batch_norm == "trained":
            if self.accelerator.device.type == "cuda":
                wrapped = nn.SyncBatchNorm.convert_sync_batchnorm(wrapped)
            else:
                self.reporter.warning(
                    "batch norm is not synchronised between processes on a CPU: statistics are those of one process"
                )
        self.wrapped, self.prepared_optimizer = cast(
            "tuple[nn.Module, AdamW]", self.accelerator.prepare(wrapped, self.optimizer)
        )
        # SyncBatchNorm replaces modules in place, and devices move them: this is the network that trains.
        self.model = cast(DETR, self.accelerator.unwrap_model(self.wrapped))
        self.accelerator.register_for_checkpointing(self.progress)
        if self.averaged is not None:
            self.accelerator.register_for_checkpointing(self.averaged)

        self.validation = Validation(self.accelerator, self.val_data, settings.data, settings.evaluation, self.reporter)
        self.folder = run or self._new_run(settings)

    def run(self) -> Summary:
        if self.resuming:
            self._load_state()
        self.reporter.message(f"run folder: {self.folder.path}")
        processes = f"{self.processes} x {self.accelerator.device.type}"
        introduce(
            self.reporter,
            self.train_data,
            self.val_data,
            self.settings.model,
            self.model,
            self.validation.max_dets,
            processes,
        )
        board = TensorBoard(self.folder.path / "tensorboard") if self.main else None
        batches, steps_per_epoch = self._batches()
        total_steps = self.settings.train.epochs * steps_per_epoch
        last_step = min(self.settings.train.max_steps or total_steps, total_steps)
        stopped = False
        try:
            with stop_requests() as request:
                self.reporter.begin(self.progress.step, last_step, steps_per_epoch)
                while not stopped:
                    step = self.progress.step
                    if self._evaluation_due(step, steps_per_epoch, last_step):
                        if not self._evaluate(step, steps_per_epoch, board, request):
                            stopped = True
                            break
                    if step >= last_step:
                        break
                    factor = learning_rate_factor(self.settings.train, step, steps_per_epoch, total_steps)
                    stopped = self._step(batches, factor, request)
                    step = self.progress.step
                    self.reporter.step(self._measurements(steps_per_epoch, everywhere=False))
                    if step % self.settings.train.log_every == 0 or step == last_step:
                        self._record(self._measurements(steps_per_epoch, everywhere=True), board)
                        self.progress.window = []
                    at_end = step % steps_per_epoch == 0 or step == last_step
                    if stopped or at_end or step % self.settings.train.save_every == 0:
                        save_state(self.accelerator, self.folder, self.progress, self._shape())
        finally:
            self.reporter.end()
            batches.close()
            if board is not None:
                board.close()
        self.accelerator.end_training()  # not after an error: it would wait for the other processes
        best = best_evaluation(read_metrics(self.folder.metrics))
        return Summary(self.folder, not stopped, self.progress.step, best)

    # --- one optimizer step ---

    def _step(self, batches: Iterator[Batch], factor: float, request: StopRequest) -> bool:
        """One optimizer step; True when some process was asked to stop."""
        started = time.perf_counter()
        parts = [next(batches) for _ in range(self.settings.train.accumulate)]
        waited = time.perf_counter() - started
        boxes = sum(len(target.labels) for _, targets in parts for target in targets)
        all_boxes, stop = self._sum_over_processes([boxes, int(request.requested)])
        # Gradients are averaged over processes, so this divides the sum by all objects of the step, at least one.
        num_boxes = max(all_boxes, 1) / self.processes

        set_learning_rate(self.optimizer, factor)
        self.wrapped.train()
        losses: list[Losses] = []
        groups = self.settings.train.query_groups
        try:
            for i, (images, targets) in enumerate(parts):
                last = i == len(parts) - 1  # only its backward pass exchanges gradients between processes
                with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                    images = images.to(self.accelerator.device)
                    predictions = cast(Predictions, self.wrapped(images.pixels, images.padding_mask))
                    repeated = [target for target in targets for _ in range(groups)]
                    loss = self.criterion(
                        predictions.by_group(groups), repeated, num_boxes * groups, share=1 / len(parts)
                    )
                    self.accelerator.backward(loss.total)
                losses.append(loss)
            self._update(parts, losses, started, waited)
        except NonFiniteError as error:
            raise self._inspected(error, parts) from error
        return stop > 0

    def _update(self, parts: Sequence[Batch], losses: Sequence[Losses], started: float, waited: float) -> None:
        """Clip, check and apply the gradients, and note what the step measured."""
        train = self.settings.train
        self.accelerator.unscale_gradients()
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        terms = torch.stack([loss.by_term()[:, -1] for loss in losses]).sum(0)
        total = torch.stack([loss.total.detach() for loss in losses]).sum()
        measured: list[float] = torch.cat([total[None], terms, norm.reshape(1)]).tolist()
        if not all(map(math.isfinite, measured)):
            for (_, targets), loss in zip(parts, losses, strict=True):
                loss.check_finite([target.image_name for target in targets for _ in range(train.query_groups)])
            if train.mixed_precision != "fp16":  # whose scaler skips such a step by itself
                raise NonFiniteError(f"NaN or infinity in the gradient of {self._bad_gradient()}")
        if train.clip_norm:
            clip_grads_with_norm_(self.model.parameters(), train.clip_norm, norm)
        self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad()
        if self.averaged is not None and not self.accelerator.optimizer_step_was_skipped:
            self.averaged.update_parameters(self.model)
        seconds = time.perf_counter() - started
        self.progress.step += 1
        self.progress.seconds += seconds
        self.progress.window.append([*measured, seconds, waited])

    def _bad_gradient(self) -> str:
        named = ((name, p.grad) for name, p in self.model.named_parameters() if p.grad is not None)
        return next((name for name, grad in named if not bool(grad.isfinite().all())), "all parameters together")

    def _inspected(self, error: NonFiniteError, parts: Sequence[Batch]) -> NonFiniteError:
        """The error, after what led to it was saved."""
        file = (
            self.folder.states / f"non-finite-step-{self.progress.step + 1}-process-{self.accelerator.process_index}.pt"
        )
        content = {
            "step": self.progress.step + 1,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pixels": [images.pixels for images, _ in parts],
            "padding_masks": [images.padding_mask for images, _ in parts],
            "targets": [[vars(target) for target in targets] for _, targets in parts],
        }
        torch.save(content, file)
        return NonFiniteError(
            f"{error} in step {self.progress.step + 1}; weights, optimizer and batch are in {file}; "
            f"a lower train.lr, train.clip_norm=0.1 and train.mixed_precision=no are the usual remedies"
        )

    def _sum_over_processes(self, counts: list[int]) -> list[int]:
        if self.processes == 1:
            return counts
        values = torch.tensor(counts, device=self.accelerator.device)
        return cast(Tensor, self.accelerator.reduce(values, "sum")).tolist()

    # --- around the steps ---

    def _measurements(self, steps_per_epoch: int, everywhere: bool) -> Metrics:
        """Means since the last line of metrics: of this process, or of all."""
        window = torch.tensor(self.progress.window, dtype=torch.float64).mean(0).float()
        if everywhere:
            window = cast(Tensor, self.accelerator.reduce(window.to(self.accelerator.device), "mean"))
        loss, *terms, grad_norm, seconds, waited = window.tolist()
        return {
            "kind": "train",
            "step": self.progress.step,
            "epoch": self.progress.step / steps_per_epoch,
            "loss": loss,
            **{f"loss_{name}": value for name, value in zip(TERMS, terms, strict=True)},
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,  # fp16 skips steps that overflow
            "lr": self.optimizer.param_groups[0]["lr"],
            "lr_backbone": self.optimizer.param_groups[1]["lr"],
            "images_per_second": self.global_batch / seconds,
            "data_wait": waited / seconds,
            "seconds": self.progress.seconds,
        }

    def _record(self, record: Metrics, board: TensorBoard | None) -> None:
        if self.main:
            self.folder.append(record)
        if board is not None:
            board.write(record)

    def _evaluation_due(self, step: int, steps_per_epoch: int, last_step: int) -> bool:
        """At the end of every n-th epoch and of the run, unless it is done already (before a resume)."""
        if step == 0 or (step % steps_per_epoch and step != last_step):
            return False
        if step != last_step and step // steps_per_epoch % self.settings.evaluation.every:
            return False
        done = any(r["kind"] == "evaluation" and r["step"] == step for r in read_metrics(self.folder.metrics))
        self.accelerator.wait_for_everyone()  # nobody reads the metrics while the main process adds to them
        return not done

    def _evaluate(self, step: int, steps_per_epoch: int, board: TensorBoard | None, request: StopRequest) -> bool:
        """Evaluate, save and record; False when asked to stop before the end."""
        model = cast(DETR, self.averaged.module) if self.averaged is not None else self.model
        found = self.validation.detect(model, lambda: request.requested)
        if found is None:
            return False
        if self.main:
            results, pictures = found
            categories = self.val_data.categories
            metrics = self.validation.evaluate(results)
            record: Metrics = {
                "kind": "evaluation",
                "step": step,
                "epoch": step / steps_per_epoch,
                **metrics.values,
                "per_class": {categories.name_of(id_): ap for id_, ap in metrics.per_class.items()},
                "max_dets": metrics.max_dets,
                "seconds": self.progress.seconds,
            }
            checkpoint = Checkpoint(model, self.settings.model, categories, self.validation.input_size)
            best = self.validation.keep(self.folder, record, checkpoint, pictures)
            self._record(record, board)  # last: a resume takes the evaluation as done from here on
            self.reporter.evaluated(record, best)
        self.accelerator.wait_for_everyone()
        return True

    # --- states ---

    def _load_state(self) -> None:
        if self.state is None:
            self.reporter.message(f"{self.folder.path} has no state yet: starting from the beginning")
        else:
            load_state(self.accelerator, self.state, self.optimizer, self._shape())
        self.accelerator.wait_for_everyone()
        if self.main:
            self.folder.append({"kind": "resume", "step": self.progress.step})
        self.accelerator.wait_for_everyone()

    def _shape(self) -> dict[str, int]:
        """What a run must have in common with its states."""
        return {
            "processes": self.processes,
            "images per step": self.global_batch,
            "training images": len(self.train_data),
            "categories": len(self.train_data.categories),
            "queries": self.settings.model.queries,
            "query groups": self.settings.train.query_groups,
            "averaged models": int(self.averaged is not None),
        }

    # --- putting it together ---

    def _build(self) -> DETR:
        settings = self.settings.model
        model = build_model(settings, len(self.train_data.categories))
        if self.state is None:  # which has its weights already
            if settings.backbone_weights is not None:
                load_backbone_weights(model.backbone, settings.backbone_weights)
            if settings.init_from is not None:
                start = open_checkpoint(settings.init_from, settings.dilation)
                for text in initialise(model, settings, self.train_data.categories, start):
                    self.reporter.message(text)
        assert isinstance(settings.frozen_stages, int)
        model.backbone.freeze(settings.frozen_stages)
        if isinstance(model, ConditionalDETR):
            ablate(model.decoder, settings.ablate)
            model.decoder.train_groups(self.settings.train.query_groups)
        model.set_gradient_checkpointing(self.settings.train.gradient_checkpointing)
        return model

    def _new_run(self, settings: Settings) -> RunFolder:
        path = create_run(settings).path if self.main else None
        return RunFolder(cast("list[Path]", broadcast_object_list([path]))[0])

    def _batches(self) -> tuple[Generator[Batch], int]:
        train = self.settings.train
        return training_batches(
            self.train_data,
            self.settings.data,
            train.batch_size,
            train.accumulate,
            train.seed,
            self.accelerator.process_index,
            self.processes,
            start_step=self.progress.step,
        )

    def _learning_rate_scale(self) -> float:
        train, batch = self.settings.train, self.global_batch
        if batch == train.base_batch_size:
            return 1.0
        if train.scale_lr:
            return batch / train.base_batch_size
        self.reporter.warning(
            f"{batch} images per step, but train.lr={train.lr:g} is meant for {train.base_batch_size}; "
            f"train.scale_lr=true scales it to {train.lr * batch / train.base_batch_size:.2g}"
        )
        return 1.0
