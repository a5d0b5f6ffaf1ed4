"""``cdetr export``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from conditional_detr.cli.log import console, say
from conditional_detr.cli.options import Boxes, Dilation, Names, Weights, size_of
from conditional_detr.errors import SettingsError

if TYPE_CHECKING:
    from conditional_detr.config import Settings


def command(
    source: Weights,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new .onnx or .pt2 file, or a new folder.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[data.key=value ...]", help="How the data of --int8 and --check is read."),
    ] = None,
    to: Annotated[Literal["onnx", "openvino", "torch"], typer.Option(help="What runs the export.")] = "onnx",
    int8: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Quantize the convolutions to INT8, calibrated on training images of this data set; AP is compared on its "
            "validation images.",
        ),
    ] = None,
    max_ap_drop: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="INT8: write nothing if AP falls by more than this.", show_default="0.005"),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Measure AP and speed before and after, on validation images of this data set."
        ),
    ] = None,
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end/--raw", help="Add the outputs scores, category_ids and corners to logits and boxes."
        ),
    ] = True,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Fixed image size, for runtimes that want one (default: any).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Fixed number of images in a batch (default: any).")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store the weights in half precision; compute in float32.")
    ] = False,
    opset: Annotated[int | None, typer.Option(min=1, help="Version of ONNX's operators (default: torch's).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    dilation: Dilation = None,
    boxes: Boxes = None,
    names: Names = None,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or torch.export, such as: cdetr export runs/my-run model.onnx"""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from conditional_detr.checkpoints.opening import open_checkpoint
    from conditional_detr.data.reading import read_split
    from conditional_detr.evaluation.coco import match_categories
    from conditional_detr.export.exporting import export, table

    if max_ap_drop is not None and int8 is None:
        raise SettingsError("--max-ap-drop is for INT8; give --int8 too, or leave it out")
    data = _settings(check or int8, settings or [])
    calibrated = None if int8 is None else _settings(int8, settings or [])
    fixed = None if size is None else size_of(size)
    checkpoint = open_checkpoint(source, dilation, boxes, names=names)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        console=console(),
        transient=True,
        disable=not console().is_terminal,
    ) as progress:
        task = progress.add_task("reading headers")
        val = None if data is None else read_split(data.data, "val")
        if val is not None:
            match_categories(checkpoint.categories, val)
        report = export(
            checkpoint,
            out,
            to,
            size=fixed,
            batch=batch,
            end_to_end=end_to_end,
            half=half,
            opset=opset,
            calibration=None if calibrated is None else read_split(calibrated.data, "train"),
            data=val,
            max_ap_drop=0.005 if max_ap_drop is None else max_ap_drop,
            workers=0 if data is None else data.data.workers,
            on_error="stop" if data is None else data.data.on_error,
            on_stage=lambda stage: progress.update(task, description=stage),
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
        return
    say(*table(report.parity, report.measured))
    say(f"written to {out}; predict with: cdetr predict {out} IMAGE ...")


def _settings(root: str | None, overrides: Sequence[str]) -> "Settings | None":
    """Return settings whose data is in ``root``; None without it."""
    from conditional_detr.config import DataSettings, Settings, settings_from

    keys = [*DataSettings.model_fields]
    takes = {*keys[1 : keys.index("flip")], "workers"}  # how data is read; augmentation and sizes have no effect here
    for override in overrides:
        section, _, key = override.partition("=")[0].partition(".")
        if root is None or section != "data" or (key in keys and key not in takes):
            raise SettingsError(
                f"{override!r}: export takes settings of how data is read, such as data.on_error=skip, together with --int8 or "
                f"--check"
            )
    return None if root is None else settings_from(Settings().model_dump(), [f"data.root={root}", *overrides])
