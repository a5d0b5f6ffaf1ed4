"""Join generated data sets of one folder, and give all objects one category. Usage: join.py FOLDER

FOLDER holds the data sets "scenes" and "shapes"; it becomes one data set itself, validated on scenes. A starter is to learn
where objects are. One category is enough for that, because training on photographs replaces the class head. Shapes are
learned first, because they are easier, and the first steps on scenes alone teach little.
"""

import json
import sys
from pathlib import Path
from typing import Any

TRAIN, VAL = "train2017", "val2017"


def joined(folder: Path, split: str, sources: tuple[str, ...]) -> dict[str, Any]:
    """Return the annotations of a split. Image files are named from ``folder``, and ids count from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for source in sources:
        content = json.loads((folder / source / "annotations" / f"instances_{split}.json").read_text())
        ids = {image["id"]: len(images) + number for number, image in enumerate(content["images"], 1)}
        images += [
            image | {"id": ids[image["id"]], "file_name": f"{source}/{split}/{image['file_name']}"}
            for image in content["images"]
        ]
        annotations += [
            annotation | {"id": len(annotations) + number, "image_id": ids[annotation["image_id"]], "category_id": 1}
            for number, annotation in enumerate(content["annotations"], 1)
        ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}


def main(folder: Path) -> None:
    out = folder / "annotations"
    out.mkdir()
    for split, sources in ((TRAIN, ("scenes", "shapes")), (VAL, ("scenes",))):
        (out / f"instances_{split}.json").write_text(json.dumps(joined(folder, split, sources)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
