"""The other side: transformers' Conditional DETR, as one would run it, with our weights. Imported only when it is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from conditional_detr.benchmark.inputs import Inputs
from conditional_detr.config import TrainSettings
from conditional_detr.errors import InputError

try:
    import transformers
    from transformers import ConditionalDetrForObjectDetection
except ImportError as error:
    raise InputError("--against transformers needs it: pip install transformers") from error

VERSION = transformers.__version__
Outputs = tuple[torch.Tensor, torch.Tensor]


def _open(folder: Path) -> tuple[Any, torch.device]:
    transformers.utils.logging.disable_progress_bar()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model: Any = ConditionalDetrForObjectDetection.from_pretrained(folder)
    return model.to(device), device


def _everything_valid(pixels: torch.Tensor) -> torch.Tensor:
    """The mask that the image processor gives."""
    return torch.ones(len(pixels), *pixels.shape[-2:], dtype=torch.int64, device=pixels.device)


def predictor(folder: Path, inputs: Inputs, half: bool = False) -> Callable[[], Outputs]:
    """The forward pass of the checkpoint in ``folder``. half: in mixed precision with bfloat16."""
    model, device = _open(folder)
    pixels = inputs.images().pixels.to(device)
    mask = _everything_valid(pixels)
    model.eval()

    def run() -> Outputs:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            found = model(pixels, mask)
        return found.logits, found.pred_boxes

    return run


class Training:
    """A whole optimizer step: forward pass with its loss, backward pass, clipping, AdamW (fused, as its ``Trainer`` does)."""

    def __init__(self, folder: Path, inputs: Inputs, trained: int) -> None:
        """trained: how many parameters are to train: all but the stem, the first stage and batch norm."""
        self.model, device = _open(folder)
        for name, parameter in self.model.named_parameters():
            frozen = any(part in name for part in ("normalization", "embedder.embedder", "encoder.stages.0."))
            parameter.requires_grad_(not frozen)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        found = sum(p.numel() for p in self.parameters)
        assert found == trained, f"{found} parameters train in transformers, {trained} here"
        settings = TrainSettings()
        self.clip_norm = settings.clip_norm
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.pixels = inputs.images().pixels.to(device)
        self.mask = _everything_valid(self.pixels)
        targets = inputs.targets(self.model.config.num_labels)
        self.labels = [{"class_labels": t.labels.to(device), "boxes": t.boxes.to(device)} for t in targets]

    def outputs(self) -> Outputs:
        """In evaluation, for comparison."""
        with torch.inference_mode():
            found = self.model.eval()(self.pixels, self.mask)
        return found.logits, found.pred_boxes

    def step(self) -> None:
        self.model.train()
        self.model(self.pixels, self.mask, labels=self.labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()


def training_step(folder: Path, inputs: Inputs, trained: int) -> Callable[[], None]:
    return Training(folder, inputs, trained).step
