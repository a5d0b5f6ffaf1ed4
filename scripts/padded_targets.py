"""Measure which frame predicted boxes have in a model that was fine-tuned on targets of transformers' image processor.

python scripts/padded_targets.py OUT [SECONDS]

The processor normalizes target boxes by the size of the padded image (transformers' PR 28363). Two small models are trained
for SECONDS each (default 240) on portrait, landscape and square pictures of rectangles, which the processor pads to 96 x 96.
One model gets a padding mask, the other does not, as in transformers' guide. Each then finds rectangles in new pictures with
every setting of ``boxes``. The table shows the mean IoU of the rectangles with their matched detections. Needs transformers.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment
from tests.checkpoints.models import save_checkpoint
from transformers.models.conditional_detr.image_processing_pil_conditional_detr import ConditionalDetrImageProcessorPil

from conditional_detr import Categories, Detector, Target, build_model, load_settings
from conditional_detr.boxes import iou_and_giou
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.input_size import InputSize
from conditional_detr.loss.criterion import build_criterion
from conditional_detr.record import ModelRecord

SIDE = 96
SHAPES = {"portrait": (48, 96), "landscape": (96, 48), "square": (96, 96)}  # width, height
FRAMES = ("image", "padded", "padded-with-mask")
BATCH = 16
TEST_PICTURES = 100


def draw(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Image.Image, list[list[int]]]:
    """Draw one to three rectangles that do not overlap, on smooth noise. Boxes are x, y, width, height in pixels."""
    mean = rng.integers(40, 216, 3)
    noise = np.clip(mean + rng.integers(-30, 31, (size[1] // 16, size[0] // 16, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    boxes: list[list[int]] = []
    for _ in range(int(rng.integers(1, 4))):
        width, height = (int(side) for side in rng.integers(14, 41, 2))
        x, y = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
        if any(x < a + c and a < x + width and y < b + d and b < y + height for a, b, c, d in boxes):
            continue
        color = (mean + 128 + rng.integers(-40, 41, 3)) % 256
        ImageDraw.Draw(image).rectangle((x, y, x + width - 1, y + height - 1), fill=tuple(int(c) for c in color))
        boxes.append([x, y, width, height])
    return image, boxes


def train(folder: Path, masked: bool, seconds: float) -> None:
    """Train a model, and write a checkpoint folder as transformers would, without our record."""
    torch.manual_seed(0)
    settings = load_settings("conditional-detr_tiny_shapes", ["model.encoder_layers=2", "model.decoder_layers=3"])
    model = build_model(settings.model, 1).train()
    criterion = build_criterion(settings.loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    processor = ConditionalDetrImageProcessorPil(
        size={"max_height": SIDE, "max_width": SIDE}, pad_size={"height": SIDE, "width": SIDE}, do_pad=True
    )
    rng = np.random.default_rng(1)
    started, step = time.monotonic(), 0
    while (part := (time.monotonic() - started) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 150) * (0.01 + 0.99 * (1 + np.cos(np.pi * part)) / 2)
        drawn = [draw(rng, list(SHAPES.values())[rng.integers(3)]) for _ in range(BATCH)]
        annotations = [
            {
                "image_id": i,
                "annotations": [{"bbox": b, "category_id": 0, "area": b[2] * b[3], "iscrowd": 0} for b in boxes],
            }
            for i, (_, boxes) in enumerate(drawn)
        ]
        inputs = processor([image for image, _ in drawn], annotations=annotations, return_tensors="pt")
        targets = [Target(labels["class_labels"], labels["boxes"].float()) for labels in inputs["labels"]]
        mask = inputs["pixel_mask"] == 0 if masked else None
        losses = criterion(model(inputs["pixel_values"], mask), targets, float(sum(len(t.labels) for t in targets)))
        optimizer.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        step += 1
    print(f"{folder.name}: {step} steps, loss {losses.total.item():.2f}", file=sys.stderr)
    save_checkpoint(
        Checkpoint(model, ModelRecord(settings.model.architecture(), Categories((0,), ("rectangle",)), InputSize())),
        folder,
    )
    config = json.loads((folder / "config.json").read_text())
    del config["conditional_detr"]
    (folder / "config.json").write_text(json.dumps(config))
    processor.save_pretrained(folder)


def mean_iou(detector: Detector, size: tuple[int, int]) -> float:
    """Return the mean IoU of new rectangles with as many detections, matched one to one."""
    rng = np.random.default_rng(2)
    found: list[float] = []
    for _ in range(TEST_PICTURES):
        image, boxes = draw(rng, size)
        corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=torch.float32)
        detections = detector.predict(image, threshold=0.0).boxes[: len(boxes)]
        iou, _ = iou_and_giou(corners[:, None].expand(-1, len(boxes), -1), detections[None].expand(len(boxes), -1, -1))
        rows, columns = linear_sum_assignment(-iou)
        found += iou[rows, columns].tolist()
    return float(np.mean(found))


def main() -> None:
    out, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 240.0
    print("| trained | boxes | " + " | ".join(SHAPES) + " |")
    print("|---|---|" + "---|" * len(SHAPES))
    for name, masked in (("without mask", False), ("with mask", True)):
        folder = out / name.replace(" ", "-")
        train(folder, masked, seconds)
        for frame in FRAMES:
            detector = Detector.from_pretrained(folder, device="cpu", boxes=frame)
            values = " | ".join(f"{mean_iou(detector, size):.2f}" for size in SHAPES.values())
            print(f"| {name} | {frame} | {values} |", flush=True)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
