"""``cdetr evaluate``."""

import json
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conditional_detr.cli.log import console, say
from conditional_detr.cli.options import (
    Boxes,
    Compile,
    Dilation,
    Names,
    Optimize,
    Runtime,
    Source,
    check_output,
    optimized,
    tell_runtime,
)
from conditional_detr.errors import CheckpointError, SettingsError
from conditional_detr.files import write_text
from conditional_detr.text import counted, printable

if TYPE_CHECKING:
    from conditional_detr.checkpoints.thresholds import RecordFile
    from conditional_detr.data.annotations import Annotations
    from conditional_detr.evaluation.coco import CocoMetrics
    from conditional_detr.record import Thresholds


def command(
    source: Source,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Settings of the sections data and evaluation."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    save_predictions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all detections to a file of COCO results.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a page with curves, errors, the worst images and hints, and keep the best thresholds in SOURCE.",
        ),
    ] = None,
    optimize: Optimize = False,
    compile: Compile = False,
    runtime: Runtime = "auto",
    dilation: Dilation = None,
    boxes: Boxes = None,
    names: Names = None,
) -> None:
    """Measure the COCO AP of a model, such as: cdetr evaluate runs/my-run data.root=/data/coco"""
    from rich.progress import Progress

    from conditional_detr.checkpoints.thresholds import RecordFile
    from conditional_detr.config import DataSettings, Settings, settings_from
    from conditional_detr.data.check import described, tell_problems
    from conditional_detr.data.reading import read_split
    from conditional_detr.evaluation.coco import evaluate_detector, match_categories
    from conditional_detr.evaluation.report import (
        PAGE,
        TOLD,
        Found,
        analyze,
        check_categories,
        match,
        refuse_others,
        thresholds_for,
        write_report,
    )
    from conditional_detr.inference.detector import Detector
    from conditional_detr.runs import open_run

    overrides = settings or []
    for override in overrides:
        if not override.startswith(("data.", "evaluation.")):
            raise SettingsError(
                f"{override!r}: evaluation takes data.* and evaluation.* settings, such as data.root=FOLDER"
            )
    if report is not None:
        refuse_others(report)
    if save_predictions is not None:
        _check_results(save_predictions, source, report)
    record_file = RecordFile.of(source)
    detector = Detector.from_pretrained(source, dilation=dilation, boxes=boxes, names=names, runtime=runtime)
    if optimize or compile:
        optimized(detector, compile)
    tell_runtime(detector)
    run = Path(source)
    given = open_run(run)[1] if (run / "config.yaml").is_file() else Settings()
    if any(
        override.startswith(("data.root=", "data.hub=")) for override in overrides
    ):  # how the run's own data is read does not matter
        given = given.model_copy(update={"data": DataSettings(workers=given.data.workers)})
    size = detector.record.input_size
    sides = {"eval_short_side": size.sides[0], "eval_max_size": size.sides[1]}
    values = given.model_dump()
    resolved = settings_from({**values, "data": {**values["data"], **sides}}, overrides)
    detector.set_sides((resolved.data.eval_short_side, resolved.data.eval_max_size))
    with Progress(console=console(), transient=True, disable=not console().is_terminal) as progress:
        task = progress.add_task("reading headers")
        data = read_split(resolved.data, "val", lambda done, total: progress.update(task, completed=done, total=total))
        if save_predictions is not None:
            check_output(save_predictions, [data.source])
            save_predictions.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=save_predictions.parent):
                pass  # fails before the evaluation if the file can't be written
        if report is not None:
            report.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=report):
                pass
        if report is not None:
            check_categories(data)
        match_categories(detector.categories, data)  # fails before anything is printed
        say(f"evaluating on {described(data)}", err=True)
        tell_problems(data, logging.getLogger(__name__))
        progress.reset(task, description="evaluating", total=len(data))
        metrics, results = evaluate_detector(
            detector,
            data,
            resolved.evaluation,
            resolved.data.workers,
            lambda done: progress.update(task, completed=done),
            resolved.data.on_error,
        )
    if as_json:
        typer.echo(json.dumps(as_record(metrics, data)))
    else:
        print_table(metrics, data)
    if save_predictions is not None:  # last, because a full disk must not cost the metrics
        write_text(save_predictions, json.dumps(results))
        say(f"{len(results)} detections written to {save_predictions}", err=True)
    if report is not None:
        matches = match(data, Found.of(results, data))
        analysis = analyze(matches, metrics)
        hints = write_report(report, analysis, detector.record, {"model": source})
        say(f"report written to {report / PAGE}", err=True)
        say(*(f"hint: {each}" for each in hints[:TOLD]), err=True)
        thresholds = thresholds_for(detector.categories, analysis.thresholds, matches)
        _keep_thresholds(thresholds, record_file, detector.record.input_size == size, report)


def _check_results(file: Path, source: str, report: Path | None) -> None:
    """Raise ``SettingsError`` when a file of results would replace something else, or lie among the files of the report."""
    check_output(file, [Path(source)])
    if report is not None and Path(os.path.realpath(report)) in Path(os.path.realpath(file)).parents:
        raise SettingsError(f"{file} is in the folder of the report; give --save-predictions a file elsewhere")
    if file.is_file() and file.stat().st_size:
        with file.open("rb") as there:
            if not re.match(rb"\s*\[\s*(\]|\{)", there.read(100)):
                raise SettingsError(f"{file} is not a file of COCO results, and would be replaced; give another name")


def _keep_thresholds(
    thresholds: "Thresholds | None", record_file: "RecordFile | None", same_size: bool, report: Path
) -> None:
    """Write the best thresholds into the checkpoint where that is possible, and say so."""
    only = f"the best thresholds are in {report / 'report.json'} only"
    if thresholds is None:
        say("no detection finds an annotated object, so there are no best thresholds", err=True)
    elif record_file is None:
        say(f"{only}: the model is not in a folder; cdetr convert --to huggingface makes one", err=True)
    elif not same_size:
        say(f"{only}: the images had another size than the model's record says", err=True)
    else:
        try:
            record_file.keep(thresholds)
        except CheckpointError as error:
            say(f"{only}: {error}", err=True)
        else:
            say(f"best thresholds written to {record_file.path}, for: cdetr predict --threshold auto", err=True)


def as_record(metrics: "CocoMetrics", data: "Annotations") -> dict[str, Any]:
    """Return the record that ``--json`` prints."""
    per_class = [
        {"category_id": id_, "name": data.categories.name_of(id_), "AP": ap} for id_, ap in metrics.per_class.items()
    ]
    about = {"annotations": str(data.source), "images": len(data), "max_dets": metrics.max_dets}
    return {**about, **metrics.values, "per_class": per_class}


def print_table(metrics: "CocoMetrics", data: "Annotations") -> None:
    """Print the 12 COCO metrics, then per-class AP. "-" means that the data has no such objects."""
    from rich.console import Console
    from rich.table import Table

    say(f"{data.source}: {counted(len(data), 'image')}, {metrics.max_dets} detections per image")
    console = Console(highlight=False, markup=False, emoji=False)
    summary = Table("metric", "value")
    for name, value in metrics.values.items():
        summary.add_row(name, _number(value))
    console.print(summary)
    classes = Table("id", "name", "AP")
    for id_, ap in metrics.per_class.items():
        classes.add_row(str(id_), printable(data.categories.name_of(id_)), _number(ap))
    console.print(classes)


def _number(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"
