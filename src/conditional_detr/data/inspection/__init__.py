"""Inspect a data set: what it holds, everything that is wrong with it, copies of images, and settings that suit it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from conditional_detr.config import DataSettings, ModelSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.check import fitted, training_warnings
from conditional_detr.data.headers import OnDone
from conditional_detr.data.inspection.duplicates import alike, equal_files, thumbnails
from conditional_detr.data.inspection.statistics import Statistics, statistics
from conditional_detr.data.inspection.suggestions import Suggestion, suggest
from conditional_detr.data.layouts import Split
from conditional_detr.data.problems import KINDS, Problem, in_order
from conditional_detr.data.reading import existing_splits, read_split, refuse_problems
from conditional_detr.errors import DataError


class Refusal(NamedTuple):
    """A sentence about data that can't be used for training, and what is wrong with each of its images."""

    sentence: str
    images: tuple[str, ...] = ()


class Copy(NamedTuple):
    """An image in a group of copies."""

    split: Split
    path: Path


@dataclass
class Inspection:
    """What is known about a data set.

    splits: the splits that can be read, without unusable images. refusals: what stops training. warnings: what will train or
    evaluate badly besides the problems of the splits. equal, alike: groups of images whose files are equal, or that look
    alike without being equal. suggestions: settings for training.
    """

    splits: dict[Split, Annotations] = field(default_factory=dict[Split, Annotations])
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    warnings: list[str] = field(default_factory=list[str])
    equal: list[list[Copy]] = field(default_factory=list[list[Copy]])
    alike: list[list[Copy]] = field(default_factory=list[list[Copy]])
    suggestions: list[Suggestion] = field(default_factory=list[Suggestion])

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems of all splits, warnings first."""
        return in_order(problem for data in self.splits.values() for problem in data.problems)

    @property
    def statistics(self) -> dict[Split, Statistics]:
        """The numbers of each split."""
        return {split: statistics(data) for split, data in self.splits.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return everything in plain containers."""
        return {
            "splits": {
                split: {
                    "annotations": str(data.source),
                    "folder": str(data.folder),
                    **asdict(statistics(data)),
                }
                for split, data in self.splits.items()
            },
            "refusals": [each._asdict() for each in self.refusals],
            "problems": [{"level": each.level, **asdict(each), "sentence": str(each)} for each in self.problems],
            "warnings": self.warnings,
            "equal": [[{"split": each.split, "file": str(each.path)} for each in group] for group in self.equal],
            "alike": [[{"split": each.split, "file": str(each.path)} for each in group] for group in self.alike],
            "suggestions": {each.key: each.value for each in self.suggestions},
            "overrides": [each.override for each in self.suggestions],
        }


def inspect(
    settings: DataSettings, quick: bool = False, on_header: OnDone | None = None, on_image: OnDone | None = None
) -> Inspection:
    """Inspect a data set, and go on after what would stop training as far as possible.

    quick: do not decode the images; damaged images and those that look alike are then not found. on_header, on_image: called
    with the number of headers read of a split or of images decoded, and the number of all.
    """
    found = Inspection()
    for split in _splits(settings):
        try:
            data = read_split(settings.model_copy(update={"on_error": "skip", "strict": False}), split, on_header)
        except DataError as error:
            found.refusals.append(Refusal(str(error)))
            continue
        if split == "test" and "val" in found.splits and found.splits["val"].source == data.source:
            continue  # it stands in for the missing validation split
        found.splits[split] = _without_unusable(found, data, settings)
    if (train := found.splits.get("train")) is not None:
        _compare_categories(found, train)
        found.warnings += training_warnings(
            train, found.splits.get("val"), ModelSettings().queries, mosaics=settings.mosaic > 0
        )
        found.suggestions = suggest(train)
    _look_at_images(found, settings, quick, on_image)
    if settings.strict:
        try:
            refuse_problems([*(each for each in found.problems if each.level == "warning"), *found.warnings])
        except DataError as error:
            found.refusals.append(Refusal(str(error)))
    return found


def _splits(settings: DataSettings) -> Sequence[Split]:
    """Return the splits to read: those that training needs, and a test split where there is one."""
    needed: tuple[Split, ...] = ("train",) if settings.val == "none" else ("train", "val")
    try:
        return (*needed, *(["test"] if "test" in existing_splits(settings) else []))
    except DataError:  # reading the others tells what is wrong
        return needed


def _without_unusable(found: Inspection, data: Annotations, settings: DataSettings) -> Annotations:
    """Turn problems of images that were left out into refusals, unless the settings say to leave them out."""
    if settings.on_error == "skip":
        return data
    unusable = [problem for problem in data.problems if problem.images]
    found.refusals += [_refused(data.source, problem.kind, problem.images) for problem in unusable]
    return replace(data, problems=tuple(problem for problem in data.problems if not problem.images))


def _refused(source: Path, kind: str, images: Sequence[str]) -> Refusal:
    """Return the refusal of images. kind: of the problem that they would be if they were left out."""
    example = images[0].rpartition(";")[0] if kind == "unreadable" else images[0]  # whose own remedy is at its end
    what = f"{len(images)} images can't be used, such as: " if len(images) > 1 else "an image can't be used: "
    remedy = f"{KINDS[kind][2]}, or set data.on_error=skip to leave them out"
    return Refusal(f"{source}: {what}{example}; {remedy}", tuple(images))


def _compare_categories(found: Inspection, train: Annotations) -> None:
    """Give the other splits the categories of the training data. Those of a test split stop no training."""
    for split, data in found.splits.items():
        try:
            found.splits[split] = fitted(data, train.categories)
        except DataError as error:
            if split == "val":
                found.refusals.append(Refusal(str(error)))
            else:
                found.warnings.append(str(error))


def _look_at_images(found: Inspection, settings: DataSettings, quick: bool, on_image: OnDone | None) -> None:
    """Find copies of images, and unless ``quick`` damaged ones."""
    images = dict.fromkeys(
        Copy(split, data.path(i)) for split, data in found.splits.items() for i in range(len(data))
    )  # an image that is listed twice is no copy
    listed = list(images)
    paths = [each.path for each in listed]
    equal = equal_files(paths)
    found.equal = [[listed[i] for i in group] for group in equal]
    shared = [each for group in found.equal if group[0].split == "train" for each in group if each.split == "val"]
    if shared:
        _add_problem(found, "val", Problem("copy", len(shared), str(found.splits["val"].source), str(shared[0].path)))
    if quick:
        return
    repeated = {i for group in equal for i in group[1:]}
    compared = [i for i in range(len(listed)) if i not in repeated]
    pictures, damaged = thumbnails([paths[i] for i in compared], on_image)
    found.alike = [[listed[compared[i]] for i in group] for group in alike(pictures)]
    for split, data in found.splits.items():
        sentences = [sentence for i, sentence in damaged.items() if listed[compared[i]].split == split]
        if sentences and settings.on_error == "skip":
            problem = Problem("unreadable", len(sentences), str(data.source), sentences[0], tuple(sentences))
            _add_problem(found, split, problem)
        elif sentences:
            found.refusals.append(_refused(data.source, "unreadable", sentences))


def _add_problem(found: Inspection, split: Split, problem: Problem) -> None:
    data = found.splits[split]
    found.splits[split] = replace(data, problems=in_order((*data.problems, problem)))
