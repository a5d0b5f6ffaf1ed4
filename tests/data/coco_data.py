"""Write small data sets in COCO layout for tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Box = Sequence[float]


def picture(seed: int, width: int = 24, height: int = 16) -> Image.Image:
    """An image of large random squares, unlike that of any other seed."""
    squares = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(squares).resize((width, height), Image.Resampling.NEAREST)


def write_coco(
    root: Path,
    splits: Mapping[str, Mapping[str, Sequence[tuple[int, Box]]]],
    categories: Mapping[int, str] = {1: "cat", 2: "dog"},
    images: Mapping[str, Image.Image] = {},
    **objects: Any,
) -> Path:
    """Write splits of image name -> (category id, box) pairs. images: those that are not a ``picture``. objects: further keys."""
    (root / "annotations").mkdir(parents=True)
    seed = 0
    for split, files in splits.items():
        listed, annotations = [], []
        for id_, (name, boxes) in enumerate(files.items(), 1):
            seed += 1
            image = images.get(name) or picture(seed)
            (root / split / name).parent.mkdir(parents=True, exist_ok=True)
            image.save(root / split / name)
            listed.append({"id": id_, "file_name": name, "width": image.width, "height": image.height})
            for category, box in boxes:
                common = {"id": len(annotations) + 1, "image_id": id_, "category_id": category, "bbox": list(box)}
                annotations.append({**common, "area": box[2] * box[3], "iscrowd": 0, **objects})
        content = {
            "images": listed,
            "annotations": annotations,
            "categories": [{"id": id_, "name": name} for id_, name in categories.items()],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def change_annotations(root: Path, split: str, change: Any) -> None:
    """Rewrite a file of ``write_coco`` after ``change``, a function of its contents, has changed it."""
    file = root / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
