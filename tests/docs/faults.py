"""What users do wrong, each as a change to a small good data set in ``mine``: for the messages that docs/faq.md shows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

Content = dict[str, Any]


def _annotations(split: str, change: Callable[[Content], None]) -> Callable[[Path], None]:
    """Return a fault that changes the annotation file of a split."""

    def apply(folder: Path) -> None:
        file = folder / "mine" / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return apply


def _unknown_category(content: Content) -> None:
    content["annotations"][0]["category_id"] = 7


def _gaps(content: Content) -> None:
    ids = {1: 3, 2: 17, 3: 90}
    for each in content["categories"]:
        each["id"] = ids[each["id"]]
    for each in content["annotations"]:
        each["category_id"] = ids[each["category_id"]]


def _fractions(content: Content) -> None:
    for each in content["annotations"]:
        each["bbox"] = [value / 96 for value in each["bbox"]]


def _corners(content: Content) -> None:
    for each in content["annotations"]:
        x, y, width, height = each["bbox"]
        each["bbox"] = [x, y, x + width, y + height]


def _empty_box(content: Content) -> None:
    content["annotations"][0]["bbox"][2] = 0


def _no_area(content: Content) -> None:
    for each in content["annotations"]:
        del each["area"]


def _no_boxes(content: Content) -> None:
    content["annotations"] = []


def _no_triangles(content: Content) -> None:
    content["annotations"] = [each for each in content["annotations"] if each["category_id"] != 3]


def _wrong_size(content: Content) -> None:
    content["images"][0]["width"] = 640


def _gone(folder: Path) -> None:
    (folder / "mine" / "train2017" / "000001.png").unlink()


def _damaged(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes((folder / "street.jpg").read_bytes()[:700])


def _same_images(folder: Path) -> None:
    shutil.copy(folder / "mine" / "train2017" / "000001.png", folder / "mine" / "val2017" / "000001.png")


def _foreign_weights(folder: Path) -> None:
    torch.save({"model": {"layer1.weight": torch.zeros(3, 3)}}, folder / "other.pth")


class _Call:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("print('run')",)


def _code(folder: Path) -> None:
    torch.save({"model": _Call()}, folder / "found-on-the-web.pth")


def _empty_folder(folder: Path) -> None:
    (folder / "empty").mkdir()


def _gray_16_bit(folder: Path) -> None:
    Image.new("I;16", (96, 96), 20_000).save(folder / "gray16.png")


FAULTS: dict[str, Callable[[Path], None]] = {
    "none": lambda folder: None,
    "unknown category": _annotations("train", _unknown_category),
    "ids with gaps": lambda folder: [_annotations(split, _gaps)(folder) for split in ("train", "val")] and None,
    "boxes in 0..1": _annotations("train", _fractions),
    "corners": _annotations("train", _corners),
    "empty box": _annotations("train", _empty_box),
    "no area": _annotations("train", _no_area),
    "no boxes to find": _annotations("val", _no_boxes),
    "no triangles": _annotations("train", _no_triangles),
    "wrong size": _annotations("train", _wrong_size),
    "image gone": _gone,
    "damaged image": _damaged,
    "same images": _same_images,
    "other weights": _foreign_weights,
    "code in weights": _code,
    "empty folder": _empty_folder,
    "16-bit image": _gray_16_bit,
}
