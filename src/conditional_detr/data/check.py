"""Checks of a data set before training."""

import numpy as np

from conditional_detr.data.annotations import Annotations
from conditional_detr.errors import DataError

NAMED = 10  # maximum number of categories without boxes that a warning names
FEW_IMAGES = 10_000  # rule of thumb; COCO has 118,287


def training_warnings(train: Annotations, val: Annotations | None, queries: int, random_backbone: bool) -> list[str]:
    """Return warnings about data that will train or evaluate badly. Each is one sentence with its remedy.

    val: None for a run without evaluation. queries: number of queries of the model. random_backbone: True when ImageNet weights exist for the backbone but are not
    used.
    """
    found: list[str] = []
    counts = train.object_counts
    if random_backbone and len(train) < FEW_IMAGES:
        found.append(
            f"the backbone starts from random weights and there are only {len(train)} training images: expect a low AP; "
            f"give ImageNet weights with model.backbone_weights=FILE"
        )
    if (most := int(counts.max())) > queries:
        image = train.file_names[int(counts.argmax())]
        crowded = int((counts > queries).sum())
        found.append(
            f"{image} has {most} objects but the model has only {queries} queries ({crowded} such images), so it can't find "
            f"all of them; set model.queries={most} or more"
        )
    present = np.bincount(train.labels[train.usable], minlength=len(train.categories))
    if empty := [name for name, count in zip(train.categories.names, present, strict=True) if count == 0]:
        names = ", ".join(empty[:NAMED]) + (f" and {len(empty) - NAMED} more" if len(empty) > NAMED else "")
        found.append(
            f"no training box has category {names}: it can't be learned; add examples or remove it from {train.source}"
        )
    if val is not None and not val.usable.any():
        found.append(
            f"{val.source} has no boxes: AP can't be measured, and the newest model is kept as the best; "
            f"add annotated validation images"
        )
    if train.dropped:
        found.append(
            f"{train.dropped} boxes in {train.source} have no area inside their image and are ignored; correct them"
        )
    return found


def check_same_categories(train: Annotations, val: Annotations) -> None:
    """Raise ``DataError`` when the two splits have different categories."""
    if train.categories == val.categories:
        return
    ours = dict(zip(train.categories.ids, train.categories.names, strict=True))
    theirs = dict(zip(val.categories.ids, val.categories.names, strict=True))
    differing = sorted(id_ for id_ in ours.keys() | theirs.keys() if ours.get(id_) != theirs.get(id_))
    first = differing[0]
    says = " but ".join(
        f"{file} calls it {names[first]!r}" if first in names else f"{file} does not list it"
        for file, names in ((train.source, ours), (val.source, theirs))
    )
    raise DataError(f"category id {first}: {says}; give both splits the same categories")
