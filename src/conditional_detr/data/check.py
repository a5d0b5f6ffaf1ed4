"""Checks of a data set before training: do the splits fit each other, and can the model learn it?"""

import logging
from dataclasses import dataclass, replace

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.headers import OnDone
from conditional_detr.data.layouts import Split
from conditional_detr.data.problems import Problem, Problems, in_order
from conditional_detr.data.reading import existing_splits, read_split, refuse_problems
from conditional_detr.data.splitting import shared_images
from conditional_detr.errors import DataError
from conditional_detr.record import Categories
from conditional_detr.text import counted

NAMED = 10  # maximum number of categories without boxes that a warning names


@dataclass(frozen=True)
class CheckedData:
    """The data of a run. val: None with ``data.val=none``. warnings: sentences about what will train or evaluate badly."""

    train: Annotations
    val: Annotations | None
    warnings: list[str]


def read_checked(settings: DataSettings, queries: int, on_header: OnDone | None = None) -> CheckedData:
    """Read the data of a run and check that it can train. queries: number of queries of the model.

    Raises ``DataError`` as ``read_split``, when a validation box has a category that the training data lacks, and with
    ``data.strict`` for any warning.
    """
    train = read_split(settings, "train", on_header)
    val = None
    if settings.val != "none":
        val = fitted(read_split(settings, "val", on_header), train.categories)
        val = replace(val, problems=in_order((*val.problems, *copies(train, val))))
    warnings = training_warnings(train, val, queries, mosaics=settings.mosaic > 0)
    if settings.strict:
        refuse_problems(
            [*(problem for problem in val.problems if problem.level == "warning"), *warnings] if val else warnings
        )
    return CheckedData(train, val, warnings)


def read_splits(settings: DataSettings, on_header: OnDone | None = None) -> dict[Split, Annotations]:
    """Read every split that a data set has, with the categories of the first. Raises ``DataError`` as ``read_split``."""
    found: dict[Split, Annotations] = {}
    for split in existing_splits(settings):
        data = read_split(settings, split, on_header)
        if split == "test" and "val" in found and found["val"].source == data.source:
            continue  # it stands in for the missing validation split
        found[split] = fitted(data, next(iter(found.values()), data).categories)
    return found


def fitted(val: Annotations, train: Categories) -> Annotations:
    """Return validation data with the categories of the training data.

    Categories match by id and name, otherwise by name alone, ignoring case. Categories without boxes do not matter. Raises
    ``DataError`` when a box has a category that the training data does not list.
    """
    if val.categories == train:
        return val
    problems = Problems(val.source)
    by_name = {name.casefold(): index for index, name in enumerate(train.names)}
    same = dict(zip(zip(train.ids, train.names, strict=True), range(len(train)), strict=True))
    used = np.bincount(val.labels, minlength=len(val.categories)) > 0
    index_of = np.zeros(len(val.categories), dtype=np.int32)
    taken: dict[int, str] = {}
    matched: set[int] = set()
    for i, (id_, name) in enumerate(zip(val.categories.ids, val.categories.names, strict=True)):
        index = same.get((id_, name), by_name.get(name.casefold()))
        if index is None:
            if used[i]:
                raise DataError(
                    f"{val.source} has boxes of category {name!r} (id {id_}), which the training data does not list (it lists "
                    f"{_listed(train.names)}); give both splits the same categories"
                )
            problems.add("unlisted", repr(name))
            continue
        if used[i] and index in taken:
            raise DataError(
                f"{val.source}: categories {taken[index]!r} and {name!r} are both {train.names[index]!r} in the training data; "
                f"give both splits the same categories"
            )
        if used[i]:
            taken[index] = name
        if (id_, name) not in same:
            problems.add(
                "other_ids", f"{name!r} has id {id_}, in training {train.names[index]!r} has {train.ids[index]}"
            )
        index_of[i] = index
        matched.add(index)
    for index in range(len(train)):
        if index not in matched:
            problems.add("fewer", repr(train.names[index]))
    return replace(val, categories=train, labels=index_of[val.labels], problems=(*val.problems, *problems.found()))


def copies(train: Annotations, val: Annotations) -> tuple[Problem, ...]:
    """Return the problem that validation images are also training images, if there are any."""
    problems = Problems(val.source)
    if shared := shared_images(train, val):
        problems.add("copy", val.file_names[shared[0]], len(shared))
    return problems.found()


def training_warnings(train: Annotations, val: Annotations | None, queries: int, mosaics: bool = False) -> list[str]:
    """Return warnings about data that will train or evaluate badly. Each is one sentence with its remedy.

    queries: number of queries of the model. mosaics: whether four images are combined into one.
    """
    found: list[str] = []
    counts = train.object_counts
    if (most := int(counts.max())) > queries:
        image = train.file_names[int(counts.argmax())]
        crowded = int((counts > queries).sum())
        found.append(
            f"{image} has {most} objects but the model has only {queries} queries ({crowded} such images), so it can't find "
            f"all of them; set model.queries={most} or more"
        )
    elif (
        mosaics and (many := int(4 * (counts.mean() + counts.std()))) > queries
    ):  # mean and two deviations of four images
        found.append(
            f"mosaics of four images can have more than {many} objects but the model has only {queries} queries, so it can't "
            f"find all of them; set model.queries={many} or more, or data.mosaic=0"
        )
    names = np.array(train.categories.names, dtype=object)
    present = np.bincount(train.labels[train.usable], minlength=len(names)) > 0
    of_crowds = ~present & (np.bincount(train.labels[train.crowd], minlength=len(names)) > 0)
    if of_crowds.any():
        found.append(
            f"all training boxes of category {_listed(names[of_crowds])} are crowds: it can't be learned; set iscrowd to 0 in "
            f"{train.source} where a box is around one object"
        )
    if (without := ~present & ~of_crowds).any():
        found.append(
            f"no training box has category {_listed(names[without])}: it can't be learned; add examples or remove it from "
            f"{train.source}"
        )
    if val is not None and not val.usable.any():
        found.append(
            f"{val.source} has no boxes: AP can't be measured, and the newest model is kept as the best; "
            f"add annotated validation images"
        )
    return found


def described(data: Annotations) -> str:
    """Return numbers, annotation file and image folder of a split, for messages."""
    return f"{counted(len(data), 'image')} in {data.folder} with {counted(int(data.usable.sum()), 'object')} ({data.source})"


def tell_problems(data: Annotations, log: logging.Logger) -> None:
    """Log the problems of a split, each at its level."""
    for problem in data.problems:
        log.log(logging.WARNING if problem.level == "warning" else logging.INFO, str(problem))


def _listed(names: "tuple[str, ...] | np.ndarray") -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
