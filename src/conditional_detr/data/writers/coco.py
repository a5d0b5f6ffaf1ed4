"""Write COCO annotation files, with ids, crowds and areas."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.writers import ImageNames, Splits

IMAGES = "{split}"
FLAT = False


def write(out: Path, splits: Splits, names: ImageNames) -> list[str]:
    (out / "annotations").mkdir()
    for split, data in splits.items():
        with (out / "annotations" / f"instances_{split}.json").open("w", encoding="utf-8") as file:
            lists = {"images": _images(data, names[split]), "annotations": _annotations(data)}
            file.write('{"info": {"description": "written by conditional-detr"},\n"categories": [')
            _write_records(file, _categories(data))
            for key, records in lists.items():
                file.write(f'],\n"{key}": [')
                _write_records(file, records)
            file.write("]}\n")
    return []


def _write_records(file: TextIO, records: Iterable[dict[str, Any]]) -> None:
    """Write one record a line, because all of them as one text would take gigabytes for large data sets."""
    for i, record in enumerate(records):
        file.write(("," if i else "") + "\n" + json.dumps(record))


def _categories(data: Annotations) -> Iterator[dict[str, Any]]:
    for id_, name in zip(data.categories.ids, data.categories.names, strict=True):
        yield {"id": id_, "name": name}


def _images(data: Annotations, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    for id_, name, (height, width) in zip(data.image_ids.tolist(), names, data.sizes.tolist(), strict=True):
        yield {"id": id_, "file_name": name, "width": width, "height": height}


def _annotations(data: Annotations) -> Iterator[dict[str, Any]]:
    image_ids = data.image_ids[data.owners].tolist()
    rows = zip(
        image_ids, data.labels.tolist(), data.boxes.tolist(), data.areas.tolist(), data.crowd.tolist(), strict=True
    )
    for id_, (image_id, label, box, area, crowd) in enumerate(rows, 1):
        yield {
            "id": id_,
            "image_id": image_id,
            "category_id": data.categories.ids[label],
            "bbox": [_short(value) for value in box],
            "area": _short(area),
            "iscrowd": int(crowd),
        }


def _short(value: float) -> int | float:
    return int(value) if value.is_integer() else value
