"""Plots of a report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conditional_detr.drawing import write_picture
from conditional_detr.evaluation.report.analysis import Analysis
from conditional_detr.evaluation.report.curves import CONFIDENCES, RECALLS, Curve
from conditional_detr.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 10  # categories with curves of their own color and name
MATRIX = 25  # categories in the confusion matrix
_DPI = 100


def plot_curves(analysis: Analysis, file: Path) -> None:
    """Plot precision over recall, and precision, recall and F1 over confidence, of all categories and of each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.5), layout="constrained")
    recall_axes, f1_axes, precision_axes, last_axes = figure.subplots(2, 2).ravel()
    names = [short(name) for name in analysis.matches.data.categories.names]
    chosen = [(name, each) for name, each in zip(names, analysis.classes, strict=True) if each.objects]
    panels: Sequence[tuple[Axes, str, str, np.ndarray, Callable[[Curve], np.ndarray]]] = (
        (recall_axes, "recall", "precision", RECALLS, lambda each: each.interpolated),
        (f1_axes, "confidence", "F1", CONFIDENCES, lambda each: each.f1),
        (precision_axes, "confidence", "precision", CONFIDENCES, lambda each: each.precision),
        (last_axes, "confidence", "recall", CONFIDENCES, lambda each: each.recall),
    )
    for axes, x_label, y_label, x, of in panels:
        for i, (name, each) in enumerate(chosen if len(chosen) > 1 else []):
            plain = (
                {"color": f"C{i % 10}", "label": f"{name}  {each.ap50:.2f}"}
                if len(chosen) <= NAMED
                else {"color": "0.8"}
            )
            axes.plot(x, of(each), linewidth=1, **plain)
        axes.plot(x, of(analysis.overall), linewidth=2.5, color="black", label=f"all  {analysis.overall.ap50:.2f}")
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1.02), title=f"{y_label} over {x_label}")
        axes.grid(alpha=0.3)
    if (best := analysis.overall.best) is not None:
        f1_axes.axvline(best.threshold, color="black", linestyle=":", linewidth=1)
        f1_axes.plot([best.threshold], [best.f1], "ko")
    _plain(recall_axes.legend(loc="lower left", fontsize=8, title="AP50").get_texts())
    write_picture(figure, file, dpi=_DPI)


def plot_confusion(analysis: Analysis, file: Path) -> None:
    """Plot the confusion matrix, each row as fractions of its objects, with the counts. Of many categories, those most confused."""
    from matplotlib.figure import Figure

    counts = analysis.confusion
    shown = matrix_rows(counts)
    names = [*(short(name) for name in analysis.matches.data.categories.names), "background"]
    part = counts[np.ix_(shown, shown)]
    fractions = part / np.maximum(counts[shown].sum(1, keepdims=True), 1)
    fractions[-1] = part[-1] / max(part.max(), 1) * 0.5  # background has no number of objects
    side = 2.5 + 0.45 * len(shown)
    figure = Figure(figsize=(max(side, 5), max(side - 0.5, 4.5)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(part > 0):
        axes.text(
            j,
            i,
            str(part[i, j]),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if fractions[i, j] > 0.5 else "black",
        )
    labels = [names[i] for i in shown]
    axes.set_xticks(range(len(shown)), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    _plain([*axes.get_xticklabels(), *axes.get_yticklabels()])
    axes.set(xlabel="detected", ylabel="annotated")
    write_picture(figure, file, dpi=_DPI)


def matrix_rows(counts: np.ndarray) -> np.ndarray:
    """Return the rows of a confusion matrix that are shown, with background: all, or those with the most errors."""
    categories = len(counts) - 1
    if categories <= MATRIX:
        return np.arange(categories + 1)
    wrong = counts.sum(1) + counts.sum(0) - 2 * counts.diagonal()
    return np.append(np.sort(np.argsort(-wrong[:-1], kind="stable")[:MATRIX]), categories)


def plot_errors(analysis: Analysis, file: Path) -> None:
    """Plot what each kind of error costs, AP by the size of objects, and the calibration of scores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    cost_axes, size_axes, score_axes = figure.subplots(1, 3)
    kinds = [each.kind for each in analysis.errors]
    bars = cost_axes.barh(kinds, [each.cost for each in analysis.errors], color="tab:red")
    cost_axes.bar_label(bars, [f" {each.cost:.3f}" for each in analysis.errors], fontsize=8)
    cost_axes.invert_yaxis()
    cost_axes.margins(x=0.2)
    cost_axes.set(title="what each kind of error costs", xlabel="AP50 gained without it")

    values = analysis.metrics.values
    sizes = {"small": ("APs", "ARs"), "medium": ("APm", "ARm"), "large": ("APl", "ARl")}
    for shift, which, label in ((-0.2, 0, "AP"), (0.2, 1, "AR")):
        heights = [values[keys[which]] for keys in sizes.values()]
        bars = size_axes.bar(np.arange(3) + shift, np.maximum(heights, 0), 0.4, label=label)
        size_axes.bar_label(bars, ["none" if each < 0 else f"{each:.2f}" for each in heights], fontsize=8)
    size_axes.set_xticks(range(3), list(sizes))
    size_axes.set(title="AP and AR by size of objects (COCO)", ylim=(0, 1.05))
    size_axes.legend(loc="upper left", fontsize=8)

    bins = [each for each in analysis.calibration.bins if each.count]
    score_axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
    score_axes.plot([each.confidence for each in bins], [each.precision for each in bins], marker="o")
    for each in bins:
        score_axes.annotate(
            str(each.count), (each.confidence, each.precision), (5, 4), textcoords="offset points", fontsize=7
        )
    score_axes.set(title="calibration", xlabel="confidence (with the number of detections)", ylabel="precision")
    score_axes.set(xlim=(0, 1), ylim=(0, 1.02))
    score_axes.grid(alpha=0.3)
    write_picture(figure, file, dpi=_DPI)


def short(name: str) -> str:
    """Return a name that is safe to show and fits beside a plot."""
    text = printable(name)
    return text if len(text) <= 25 else f"{text[:24]}…"


def _plain(texts: Sequence[object]) -> None:
    """Show dollar signs in names as they are."""
    for text in texts:
        text.set_parse_math(False)  # pyright: ignore[reportAttributeAccessIssue]
