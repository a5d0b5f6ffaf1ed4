"""Fine-tune a checkpoint folder with transformers' Trainer, with the settings of transformers' guide on object detection.

python scripts/transformers_trainer.py CHECKPOINT OUT --steps N [--lr 5e-5] [--batch 8] data.root=FOLDER [data.key=value ...]

CHECKPOINT is a folder that transformers opens, such as one of ``src/conditional_detr/starters``. Rate, weight decay, clipping, schedule and
batch size are those of the guide unless given. Images are flipped at random and resized by transformers' image processor; the guide's other
augmentations need albumentations and are left out. ``cdetr evaluate OUT data.root=FOLDER`` then measures AP.
"""

import argparse
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForObjectDetection, Trainer, TrainingArguments
from transformers.models.conditional_detr.image_processing_pil_conditional_detr import ConditionalDetrImageProcessorPil

from conditional_detr import Annotations, load_settings, open_image, read_split


class Photographs(Dataset):
    """Training images as transformers' processor prepares them."""

    def __init__(self, data: Annotations, processor: ConditionalDetrImageProcessorPil) -> None:
        self.data, self.processor = data, processor

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = open_image(self.data.path(index))
        boxes, labels = self.data.training_objects(index)
        if random.random() < 0.5:
            image = image.transpose(0)
            boxes = boxes.copy()
            boxes[:, [0, 2]] = image.width - boxes[:, [2, 0]]
        objects = [
            {"bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": label, "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            for (x0, y0, x1, y1), label in zip(boxes.tolist(), labels.tolist(), strict=True)
        ]
        result = self.processor(image, {"image_id": index, "annotations": objects}, return_tensors="pt", do_pad=False)
        return {"pixel_values": result["pixel_values"][0], "labels": result["labels"][0]}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad the images of a batch."""
        height, width = (max(each["pixel_values"].shape[side] for each in items) for side in (1, 2))
        pixels = torch.zeros(len(items), 3, height, width)
        mask = torch.zeros(len(items), height, width, dtype=torch.long)
        for i, each in enumerate(items):
            _, rows, columns = each["pixel_values"].shape
            pixels[i, :, :rows, :columns] = each["pixel_values"]
            mask[i, :rows, :columns] = 1
        return {"pixel_values": pixels, "pixel_mask": mask, "labels": [each["labels"] for each in items]}


def main() -> None:
    """Train, and write OUT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    data = read_split(load_settings("conditional-detr_tiny_photos", arguments.settings).data, "train")
    names = dict(enumerate(data.categories.names))
    model = AutoModelForObjectDetection.from_pretrained(
        arguments.checkpoint,
        id2label=names,
        label2id={name: label for label, name in names.items()},
        ignore_mismatched_sizes=True,
    )
    processor = ConditionalDetrImageProcessorPil.from_pretrained(arguments.checkpoint)
    photographs = Photographs(data, processor)
    options = TrainingArguments(
        output_dir=f"{arguments.out}-states",
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.batch,
        learning_rate=arguments.lr,
        weight_decay=1e-4,
        max_grad_norm=0.01,
        lr_scheduler_type="cosine",
        seed=arguments.seed,
        save_strategy="no",
        report_to="none",
        logging_steps=50,
        remove_unused_columns=False,
        dataloader_num_workers=1,
    )
    started = time.perf_counter()
    Trainer(model, options, train_dataset=photographs, data_collator=photographs.collate).train()
    print(f"{arguments.steps} steps in {time.perf_counter() - started:.0f} s")
    model.save_pretrained(arguments.out)
    processor.save_pretrained(Path(arguments.out))


if __name__ == "__main__":
    main()
