"""Plots of attention maps and of convergence."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from conditional_detr.drawing import write_picture
from conditional_detr.explain.attention_maps import Explanation
from conditional_detr.explain.convergence import Curve, Point
from conditional_detr.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL = 200  # longer side of the picture of one head, in pixels
PANEL = 4.5  # longer side of other pictures, in inches
BOX = "lime"
_GAP, _LEFT, _HEADER = 6, 70, 40  # space between, left of and above pictures, in pixels


def plot_attention_maps(explanation: Explanation, file: Path) -> None:
    """Plot attention maps as in Figure 1 of the paper (arXiv 2108.06152), with the box of each detection.

    Every detection has one row per part of the attention and one column per head. Colors range from 0 to the largest weight
    of each map.
    """
    maps = explanation.maps
    parts = {"combined": maps.combined, "spatial": maps.spatial, "content": maps.content}
    count, heads = maps.combined.shape[:2]
    scale = CELL / max(explanation.image.size)
    width, height = (max(round(side * scale), 1) for side in explanation.image.size)
    gray = np.asarray(explanation.image.convert("L").resize((width, height)))
    block = _HEADER + len(parts) * (height + _GAP)
    page = Image.new("RGB", (_LEFT + heads * (width + _GAP), count * block), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for i, box in enumerate(explanation.detections.boxes * scale):
        top = i * block
        caption = f"{_caption(explanation, i)}, decoder layer {explanation.layer}"
        pen.text((_GAP, top + 2), caption, "black", font)
        for head in range(heads):
            pen.text((_LEFT + head * (width + _GAP), top + 21), f"head {head + 1}", "black", font)
        for row, (name, values) in enumerate(parts.items()):
            y = top + _HEADER + row * (height + _GAP)
            pen.text((_GAP, y + height // 2), name, "black", font)
            for head in range(heads):
                picture = _heated(gray, values[i, head], (explanation.columns, explanation.rows))
                x0, y0, x1, y1 = box.tolist()
                ImageDraw.Draw(picture).rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=BOX, width=2)
                page.paste(picture, (_LEFT + head * (width + _GAP), y))
    write_picture(page, file)


def _heated(gray: np.ndarray, values: Float[Tensor, "rows columns"], covered: tuple[float, float]) -> Image.Image:
    """Overlay a map on an image; larger values are more opaque. covered: columns and rows of the map that the image covers."""
    from matplotlib import colormaps

    small = Image.fromarray((values / values.max()).numpy())
    share = np.asarray(small.resize(gray.shape[::-1], Image.Resampling.BILINEAR, box=(0, 0, *covered)))
    colors = 255 * colormaps["turbo"](share)[..., :3]
    opacity = (0.2 + 0.5 * share**0.5)[..., None]
    return Image.fromarray(np.round((1 - opacity) * gray[..., None] + opacity * colors).astype(np.uint8))


def plot_self_attention(explanation: Explanation, file: Path) -> None:
    """Plot the self-attention of each chosen query: all queries at their box centers, larger and redder with more weight.

    Weights are means over the heads.
    """
    boxes = explanation.query_boxes
    centers = ((boxes[:, :2] + boxes[:, 2:]) / 2).numpy()
    weights = explanation.maps.between_queries.mean(1).numpy()

    def draw(axes: "Axes", i: int) -> None:
        weight = weights[i]
        order = weight.argsort()
        axes.scatter(
            *centers[order].T,
            s=8 + 120 * weight[order] / weight.max(),
            c=weight[order],
            cmap="autumn_r",
            edgecolors="k",
            linewidths=0.3,
        )
        _box(axes, explanation.detections.boxes[i])
        others = [f"{q}: {weight[q]:.2f}" for q in order[::-1][:3]]
        axes.set_title(
            f"{_caption(explanation, i)}\nmost weight on queries {', '.join(others)}", fontsize=7, parse_math=False
        )

    _row_of_pictures(explanation, draw, len(explanation.queries), file)


def plot_reference_points(explanation: Explanation, file: Path) -> None:
    """Plot the learned reference points of all queries, with arrows from those of the detections to their box centers."""
    assert explanation.reference_points is not None
    points = explanation.reference_points.numpy()

    def draw(axes: "Axes", _: int) -> None:
        axes.scatter(*points.T, s=9, color="deepskyblue", edgecolors="k", linewidths=0.3)
        for query, box in zip(explanation.queries.tolist(), explanation.detections.boxes, strict=True):
            _box(axes, box)
            x, y = ((box[:2] + box[2:]) / 2).tolist()
            axes.annotate("", (x, y), tuple(points[query]), arrowprops={"arrowstyle": "->", "color": BOX})
        axes.set_title(f"reference points of {len(points)} queries", fontsize=7)

    _row_of_pictures(explanation, draw, 1, file)


def plot_convergence(curves: Sequence[Curve], file: Path) -> None:
    """Plot AP of all runs over epochs, optimizer steps and training time. Runs of the same name share a color."""
    from matplotlib.figure import Figure

    seconds = max((point.seconds for curve in curves for point in curve.points), default=0.0)
    unit, length = ("hours", 3600.0) if seconds > 7200 else ("minutes", 60.0)
    scales: list[tuple[str, Callable[[Point], float]]] = [
        ("epochs", lambda point: point.epoch),
        ("optimizer steps", lambda point: point.step),
        (f"training time, {unit}", lambda point: point.seconds / length),
    ]
    colors = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(curve.name for curve in curves))}
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for axes, (label, of) in zip(figure.subplots(1, len(scales), sharey=True), scales, strict=True):
        for curve in curves:
            x, y = [of(point) for point in curve.points], [point.ap for point in curve.points]
            axes.plot(x, y, marker=".", color=colors[curve.name], label=curve.name)
        axes.set(xlabel=label, xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("validation AP")
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    legend = figure.axes[0].legend(
        list(lines.values()), [printable(name) for name in colors], loc="lower right", fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may contain dollar signs
    write_picture(figure, file, dpi=110)


def _caption(explanation: Explanation, i: int) -> str:
    found = explanation.detections
    return f"{printable(found.names[i])} {float(found.scores[i]):.2f}, query {int(explanation.queries[i])}"


def _row_of_pictures(explanation: Explanation, draw: Callable[["Axes", int], None], count: int, file: Path) -> None:
    from matplotlib.figure import Figure

    width, height = (PANEL * side / max(explanation.image.size) for side in explanation.image.size)
    figure = Figure(figsize=(max(count * width, PANEL), height + 0.5), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, count, squeeze=False)[0]):
        axes.imshow(explanation.image.convert("L"), cmap="grey", vmin=0, vmax=255, extent=_extent(explanation.image))
        draw(axes, i)
        _bare(axes, explanation.image)
    write_picture(figure, file, dpi=130)


def _extent(image: Image.Image) -> tuple[float, float, float, float]:
    return (0.0, float(image.width), float(image.height), 0.0)


def _box(axes: "Axes", box: Float[Tensor, " 4"]) -> None:
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = box.tolist()
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=BOX, linewidth=1.2))


def _bare(axes: "Axes", image: Image.Image) -> None:
    axes.set(xticks=[], yticks=[], xlim=(0, image.width), ylim=(image.height, 0))
    for side in axes.spines.values():
        side.set_color("0.35")
