"""Predictions and training steps of Conditional DETR in transformers, with the same weights. Imported only on demand."""

from pathlib import Path
from typing import Any

import torch

from conditional_detr.benchmark.inputs import Inputs
from conditional_detr.config import TrainSettings
from conditional_detr.errors import SettingsError
from conditional_detr.inference.devices import find_device

try:
    import transformers
    from transformers import ConditionalDetrForObjectDetection
except ImportError as error:
    raise SettingsError("a comparison with transformers needs that package: pip install transformers") from error

VERSION = transformers.__version__
Outputs = tuple[torch.Tensor, torch.Tensor]


def _open(folder: Path) -> tuple[Any, torch.device]:
    transformers.utils.logging.disable_progress_bar()
    device = find_device()
    model: Any = ConditionalDetrForObjectDetection.from_pretrained(folder)
    return model.to(device), device


def _everything_valid(pixels: torch.Tensor) -> torch.Tensor:
    """Return a mask without padding, in the form that the image processor gives."""
    return torch.ones(len(pixels), *pixels.shape[-2:], dtype=torch.int64, device=pixels.device)


class Prediction:
    """Forward pass of the checkpoint in ``folder``. half: mixed precision with bfloat16."""

    def __init__(self, folder: Path, inputs: Inputs, half: bool = False) -> None:
        self.model, self.device = _open(folder)
        self.model.eval()
        self.pixels = inputs.images().pixels.to(self.device)
        self.mask = _everything_valid(self.pixels)
        self.half = half

    def outputs(self) -> Outputs:
        found = self()
        return found.logits, found.pred_boxes

    @torch.inference_mode()
    def __call__(self) -> Any:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.model(self.pixels, self.mask)


class Training:
    """Optimizer step: forward pass with loss, backward pass, clipping and AdamW (fused, as in the ``Trainer``)."""

    def __init__(self, folder: Path, inputs: Inputs, trained: int) -> None:
        """trained: expected number of trainable parameters: all except those of stem, first stage and batch norm."""
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
        """Return the outputs in evaluation mode, for comparison."""
        with torch.inference_mode():
            found = self.model.eval()(self.pixels, self.mask)
        return found.logits, found.pred_boxes

    def __call__(self) -> None:
        self.model.train()
        self.model(self.pixels, self.mask, labels=self.labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
