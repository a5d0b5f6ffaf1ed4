"""Say in words what stands out in an analysis, and what may help."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conditional_detr.data.inspection.statistics import LARGE, SMALL, statistics
from conditional_detr.data.inspection.suggestions import suggest
from conditional_detr.evaluation.report.analysis import Analysis
from conditional_detr.record import ModelRecord

_WEAK = 0.1  # AP50 of a category below the mean, from which it is named
_RARE = 0.1  # fraction of the boxes up to which a category is rare, if equal shares would be twice that
_SMALL_SIDE = SMALL**0.5  # pixels as the network sees them
_COSTLY = 0.03  # AP50 that a kind of error costs, from which it is named
_FEW = 10  # objects, below which the numbers of a category are uncertain
_MOST = 5  # categories, or pairs of them, that are named


@dataclass(frozen=True)
class Hint:
    """What stands out, and what may help against it, in a sentence each."""

    finding: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.finding} {self.remedy}"


def hints(analysis: Analysis, record: ModelRecord) -> list[Hint]:
    """Return what stands out, the most important first. record: of the model that was evaluated."""
    if not analysis.objects:
        return []
    if analysis.overall.best is None:
        return [
            Hint(
                "No detection finds an object.",
                "Train longer; if that is done, check the learning rate and that images and annotations belong together "
                "(plots/augmented.jpg of the run shows what the network sees).",
            )
        ]
    size = _size_remedy(analysis, record)
    return [
        *_weak_categories(analysis, record, size),
        *_small_objects(analysis, size),
        *_costly_errors(analysis, size),
        *_confused_pairs(analysis),
        *_threshold(analysis),
        *_queries(analysis, record),
        *_doubtful(analysis),
        *_few_objects(analysis),
    ]


def _size_remedy(analysis: Analysis, record: ModelRecord) -> str:
    """Return the remedy against objects that are too small for the network."""
    suggested = {each.key: each for each in suggest(analysis.matches.data)}
    side = suggested["data.eval_short_side"]
    if isinstance(side.value, int) and side.value > record.input_size.sides[0]:
        settings = " ".join(
            suggested[key].override for key in (side.key, "data.eval_max_size", "data.short_sides", "data.max_size")
        )
        return f"train with larger images ({settings}) or with crops of them"
    return "train with larger images than their own size, or cut them into crops"


def _weak_categories(analysis: Analysis, record: ModelRecord, size: str) -> Iterator[Hint]:
    data = analysis.matches.data
    sides = _sides_in_network(analysis, record)
    labels, objects = data.labels[data.usable], analysis.matches.objects
    weak = [
        (each.ap50, label)
        for label, each in enumerate(analysis.classes)
        if each.objects >= _FEW and each.ap50 < analysis.overall.ap50 - _WEAK
    ]
    for ap50, label in sorted(weak)[:_MOST]:
        share = objects[label] / objects.sum()
        side = float(np.median(sides[labels == label])) if (labels == label).any() else float("inf")
        about = [f"makes up {share:.0%} of the boxes"] if share <= min(_RARE, 0.5 / (objects > 0).sum()) else []
        remedies = ["add images with it"] if about else []
        if side < _SMALL_SIDE:
            about.append(f"is small ({side:.0f} pixels as the network sees it, median)")
            remedies.append(size)
        if not about:
            about, remedies = (
                ["is neither rare nor small"],
                ["look at the confusion matrix and the worst images for the reason"],
            )
        yield Hint(
            f"{data.categories.names[label]!r} has AP50 {ap50:.2f}, below the mean of {analysis.overall.ap50:.2f}; it "
            f"{' and '.join(about)}.",
            _sentence("; ".join(remedies)),
        )


def _sides_in_network(analysis: Analysis, record: ModelRecord) -> np.ndarray:
    """Return the square root of width x height of the usable boxes, in pixels of the resized images."""
    data = analysis.matches.data
    resized = np.array([record.input_size.resized(height, width) for height, width in data.sizes.tolist()])
    scale = np.sqrt((resized / data.sizes).prod(1))
    width, height = data.boxes[data.usable, 2:].T
    return np.sqrt(width * height) * scale[data.owners[data.usable]]


def _small_objects(analysis: Analysis, size: str) -> Iterator[Hint]:
    values, numbers = analysis.metrics.values, statistics(analysis.matches.data)
    others = [values[name] for name in ("APm", "APl") if values[name] >= 0]
    share = numbers.small / max(numbers.objects, 1)
    if values["APs"] >= 0 and others and share >= _RARE and values["APs"] < max(others) - 2 * _WEAK:
        yield Hint(
            f"Small objects (below {SMALL**0.5:.0f} x {SMALL**0.5:.0f} pixels) are {share:.0%} of all and have AP "
            f"{values['APs']:.2f}; larger ones have {max(others):.2f}.",
            _sentence(size),
        )
    small_ones = values["APs"] if values["APs"] >= 0 else values["APm"]
    if 0 <= values["APl"] < small_ones - 2 * _WEAK and numbers.large / max(numbers.objects, 1) >= _RARE:
        yield Hint(
            f"Large objects (from {LARGE**0.5:.0f} x {LARGE**0.5:.0f} pixels) have AP {values['APl']:.2f}, less than smaller ones.",
            "Train longer: large boxes need the most exact corners. Check that crops in training leave them whole.",
        )


def _costly_errors(analysis: Analysis, size: str) -> Iterator[Hint]:
    findings = {
        "class": (
            "objects get another category",
            "Look at the confusion matrix; add examples of the pairs in it, or join them.",
        ),
        "place": (
            "boxes are in the wrong place or of the wrong size",
            "Train longer, because boxes get exact late; check in the worst images that annotations are tight.",
        ),
        "both": (
            "boxes are inexact and of another category",
            "Train longer, or start from weights trained on other data.",
        ),
        "duplicate": (
            "objects are found twice",
            "Train longer: the network learns to keep one box per object late; more decoder layers help too.",
        ),
        "background": (
            "objects are found where nothing is annotated",
            "Check the doubtful labels first, because such objects may lack an annotation; add images without objects.",
        ),
        "missed": ("objects are missed", f"Train longer or with more images; where they are small, {size}."),
    }
    for each in sorted(analysis.errors, key=lambda each: -each.cost)[:2]:
        if each.cost >= _COSTLY:
            what, remedy = findings[each.kind]
            yield Hint(
                f"{_sentence(what)[:-1]}: this costs {each.cost:.2f} of AP50 (error {each.kind!r}, {each.count} times at the best "
                f"thresholds).",
                remedy,
            )


def _confused_pairs(analysis: Analysis) -> Iterator[Hint]:
    counts = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(counts, 0)
    names, objects = analysis.matches.data.categories.names, analysis.matches.objects
    for place in np.argsort(-counts, axis=None, kind="stable")[:_MOST]:
        row, column = divmod(int(place), len(names))
        if counts[row, column] >= max(3, _RARE * objects[row]):
            yield Hint(
                f"{counts[row, column]} of {objects[row]} {names[row]!r} are detected as {names[column]!r}.",
                "Check that both are annotated consistently, and add images in which they differ clearly.",
            )


def _threshold(analysis: Analysis) -> Iterator[Hint]:
    best = analysis.overall.best
    if best is not None and abs(best.threshold - 0.5) > 0.1:
        at_half = analysis.overall.f1[50]
        yield Hint(
            f"The best threshold for all categories together is {best.threshold:.2f} (F1 {best.f1:.2f}; with 0.5 it is {at_half:.2f}).",
            'Predict with the threshold "auto", which uses the best one of each category.',
        )
    calibrated = analysis.calibration
    if calibrated.error > 0.15:
        yield Hint(
            f"Scores are {calibrated.error:.2f} away from precision on average (calibration).",
            "Read scores as an order and not as a probability, and choose thresholds from the curves.",
        )


def _queries(analysis: Analysis, record: ModelRecord) -> Iterator[Hint]:
    fullest, queries = int(analysis.matches.data.object_counts.max()), record.architecture.queries
    if fullest > 0.8 * queries:
        suggested = next(each.override for each in suggest(analysis.matches.data) if each.key == "model.queries")
        yield Hint(
            f"The fullest image has {fullest} objects, and the model has {queries} queries, each for one object.",
            f"Train with {suggested}.",
        )


def _doubtful(analysis: Analysis) -> Iterator[Hint]:
    kinds = [each.kind for each in analysis.doubtful if each.kind != "found by nothing"]
    if len(kinds) >= 3:
        yield Hint(
            f"{len(kinds)} confident detections contradict the annotations.",
            "Look at the doubtful labels; where the annotations are wrong, correct them before changing anything else.",
        )


def _few_objects(analysis: Analysis) -> Iterator[Hint]:
    names = analysis.matches.data.categories.names
    few = [repr(names[label]) for label, each in enumerate(analysis.classes) if 0 < each.objects < _FEW]
    if few:
        more = f" and {len(few) - _MOST} more" if len(few) > _MOST else ""
        yield Hint(
            f"{', '.join(few[:_MOST])}{more} {'have' if len(few) > 1 else 'has'} fewer than {_FEW} objects, so numbers and thresholds "
            f"{'of these' if len(few) > 1 else 'of it'} are uncertain.",
            "Put more images with such objects into the validation data.",
        )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
