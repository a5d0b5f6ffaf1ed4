"""Write annotations for starters: one category for all objects of generated data. Usage: join.py FOLDER

FOLDER holds the data sets "scenes" and "shapes". It gets ``annotations/shapes_SPLIT.json`` and ``annotations/mixed_SPLIT.json``,
of scenes and half of the shapes; image files are named from FOLDER. A starter is to learn where objects are. One category is
enough for that, because training on photographs replaces the class head.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HALF = 4000  # shapes


def joined(folder: Path, split: str, sources: Mapping[str, int | None]) -> dict[str, Any]:
    """Return the annotations of a split, with ids from 1. sources: name of a data set -> number of images; None for all."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for source, count in sources.items():
        content = json.loads((folder / source / f"annotations/instances_{split}2017.json").read_text())
        chosen = content["images"][:count]
        ids = {image["id"]: len(images) + number for number, image in enumerate(chosen, 1)}
        images += [
            image | {"id": ids[image["id"]], "file_name": f"{source}/{split}2017/{image['file_name']}"}
            for image in chosen
        ]
        objects = [each for each in content["annotations"] if each["image_id"] in ids]
        annotations += [
            each | {"id": len(annotations) + number, "image_id": ids[each["image_id"]], "category_id": 1}
            for number, each in enumerate(objects, 1)
        ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}


def main(folder: Path) -> None:
    out = folder / "annotations"
    out.mkdir()
    for split in ("train", "val"):
        for name, sources in (("shapes", {"shapes": None}), ("mixed", {"scenes": None, "shapes": HALF})):
            (out / f"{name}_{split}.json").write_text(json.dumps(joined(folder, split, sources)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
