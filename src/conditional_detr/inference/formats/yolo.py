"""Write YOLO labels, with the score as a sixth value, as Ultralytics does with ``save_conf``."""

from pathlib import Path

from conditional_detr.config.core_yaml import write_yaml
from conditional_detr.inference.formats import DetectionSet

NAME, XML, PER_IMAGE = "yolo", False, True


def write(path: Path, found: DetectionSet) -> None:
    labels = path / "labels"
    labels.mkdir(parents=True)
    names = list(found.categories.names)
    # The keys of a data set, so that the folder is one as soon as the images are in its folder "images".
    content = {"path": ".", "train": "images", "val": "images", "nc": len(names), "names": names}
    (path / "data.yaml").write_text(write_yaml(content), encoding="utf-8")
    for image in found.images():
        lines: list[str] = []
        for each, (x0, y0, x1, y1) in image.clipped():
            width, height = image.width, image.height
            box = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            lines.append(f"{each.row} {' '.join(f'{value:.9g}' for value in box)} {each.score:.6g}\n")
        (labels / f"{image.stem}.txt").write_text("".join(lines), encoding="utf-8")
