"""``cdetr evaluate``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conditional_detr.errors import InputError

if TYPE_CHECKING:
    from conditional_detr.evaluation import CocoMetrics
    from conditional_detr.structures import Categories


def command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A run or checkpoint folder.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value ...]", help="data.* and evaluation.* settings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    save_predictions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all detections as COCO results.")
    ] = None,
) -> None:
    """COCO AP of a model, such as: cdetr evaluate runs/my-run data.root=/data/coco"""
    import yaml

    from conditional_detr.config import settings_from
    from conditional_detr.data.coco import read_split
    from conditional_detr.detector import Detector, checkpoint_folder
    from conditional_detr.evaluation import evaluate_detector

    overrides = settings or []
    for override in overrides:
        if not override.startswith(("data.", "evaluation.")):
            raise InputError(
                f"{override!r}: evaluation takes data.* and evaluation.* settings, such as data.root=FOLDER"
            )
    folder = checkpoint_folder(source)
    detector = Detector.from_pretrained(folder)
    config = next((file for file in (folder / "config.yaml", folder.parent / "config.yaml") if file.is_file()), None)
    values: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8")) if config else {}
    sizes = {"eval_short_side": detector.checkpoint.short_side, "eval_max_size": detector.checkpoint.max_size}
    values["data"] = values.get("data", {}) | sizes
    resolved = settings_from(values, overrides, str(config or "settings"))
    data = read_split(resolved.data, "val")
    metrics, results = evaluate_detector(detector, data, resolved.data, resolved.evaluation)
    if save_predictions is not None:
        save_predictions.parent.mkdir(parents=True, exist_ok=True)
        save_predictions.write_text(json.dumps(results), encoding="utf-8")
        typer.echo(f"{len(results)} detections written to {save_predictions}", err=True)
    if as_json:
        typer.echo(json.dumps(as_record(metrics, data.categories, len(data))))
    else:
        print_table(metrics, data.categories, len(data))


def as_record(metrics: "CocoMetrics", categories: "Categories", images: int) -> dict[str, Any]:
    """What ``--json`` prints."""
    per_class = [
        {"category_id": id_, "name": categories.name_of(id_), "AP": ap} for id_, ap in metrics.per_class.items()
    ]
    return {"images": images, "max_dets": metrics.max_dets, **metrics.values, "per_class": per_class}


def print_table(metrics: "CocoMetrics", categories: "Categories", images: int) -> None:
    """The 12 numbers, then AP per class; "-" where the data has nothing to find."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"COCO evaluation of {images} images, {metrics.max_dets} detections per image")
    summary = Table()
    summary.add_column("metric")
    summary.add_column("value", justify="right")
    for name, value in metrics.values.items():
        summary.add_row(name, _number(value))
    console.print(summary)
    classes = Table()
    classes.add_column("id", justify="right")
    classes.add_column("name")
    classes.add_column("AP", justify="right")
    for id_, ap in metrics.per_class.items():
        classes.add_row(str(id_), categories.name_of(id_), _number(ap))
    console.print(classes)


def _number(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"
