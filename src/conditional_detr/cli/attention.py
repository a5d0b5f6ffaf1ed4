"""``cdetr attention``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from conditional_detr.cli.log import say
from conditional_detr.cli.options import Boxes, Dilation, Names, Weights, check_picture
from conditional_detr.errors import SettingsError

MOST = 20  # maximum number of detections in a picture


def command(
    source: Weights,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    layer: Annotated[int | None, typer.Option(help="Decoder layer, from 1 (default: the last).")] = None,
    query: Annotated[list[int] | None, typer.Option(help="Index of a query, from 0; may be repeated.")] = None,
    top: Annotated[int, typer.Option(min=1, max=MOST, help="Number of most confident detections.")] = 3,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File of the picture; two more are written beside it.")
    ] = Path("attention.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    dilation: Dilation = None,
    boxes: Boxes = None,
    names: Names = None,
) -> None:
    """Plot the attention of a detector as in Figure 1 of the paper: combined, spatial and content part of every head."""
    from conditional_detr.explain.attention_maps import explain
    from conditional_detr.explain.plots import plot_attention_maps, plot_reference_points, plot_self_attention
    from conditional_detr.inference.detector import Detector

    check_picture(out, [image])
    pictures = {
        "attention": out,
        "self_attention": out.with_stem(f"{out.stem}-self-attention"),
        "reference_points": out.with_stem(f"{out.stem}-reference-points"),
    }
    for picture in pictures.values():
        check_picture(picture, [image])
    if len(query or ()) > MOST:
        raise SettingsError(f"{len(query or ())} queries do not fit into a picture; give at most {MOST}, or use Python")
    detector = Detector.from_pretrained(source, dilation=dilation, boxes=boxes, names=names)
    explanation = explain(detector, image, layer, query, top)
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_attention_maps(explanation, pictures["attention"])
    plot_self_attention(explanation, pictures["self_attention"])
    points = explanation.reference_points
    if points is None:
        del pictures["reference_points"]
    else:
        plot_reference_points(explanation, pictures["reference_points"])

    found = explanation.detections
    rows: list[dict[str, Any]] = []
    for i, number in enumerate(explanation.queries.tolist()):
        row = {
            "query": number,
            "category_name": found.names[i],
            "score": float(found.scores[i]),
            "box": found.boxes[i].tolist(),
            "reference_point": None if points is None else points[number].tolist(),
        }
        rows.append(row)
    if as_json:
        files = {what: str(file) for what, file in pictures.items()}
        typer.echo(json.dumps({"layer": explanation.layer, "detections": rows, "pictures": files}))
        return
    for row in rows:
        corners = ", ".join(f"{value:.0f}" for value in row["box"])
        say(f"query {row['query']}: {row['category_name']} {row['score']:.2f}, box {corners}")
    for what, file in pictures.items():
        say(f"{what.replace('_', ' '):17} {file}")
    if points is None:
        say("plain DETR has no reference points")
