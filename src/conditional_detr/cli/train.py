"""``cdetr train``."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conditional_detr.cli.log import console, say
from conditional_detr.cli.tables import aligned
from conditional_detr.errors import SettingsError

if TYPE_CHECKING:
    from conditional_detr.training.callbacks import Summary


def command(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PRESET|FILE] [key=value ...]", help="A preset or YAML file, followed by changes to its settings."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Resume a run; changes such as train.epochs=60 may follow.")
    ] = None,
    presets: Annotated[
        bool, typer.Option("--presets", help="List the presets, and what each is for, and exit.")
    ] = False,
    show_settings: Annotated[
        bool,
        typer.Option(
            "--settings",
            help="List all settings, or those that match the words behind it: default, allowed values, explanation.",
        ),
    ] = False,
) -> None:
    """Train a detector, such as: cdetr train conditional-detr_r50_8xb2-50e_coco data.root=/data/coco"""
    started = time.monotonic()  # importing torch is part of train.minutes
    from conditional_detr.config import find_settings, load_settings, preset_help, preset_names

    if presets:
        say(*aligned([("preset", "what it is for"), *preset_help()], left=(0, 1)))
        return
    if show_settings:
        for each in find_settings(settings or ()):
            say(f"{each.key}={each.default}", f"    {each.values}", f"    {each.explanation}")
        return
    if resume is not None:
        overrides = settings or []
        if overrides and "=" not in overrides[0]:
            raise SettingsError(f"--resume uses the settings of the run; leave out {overrides[0]!r}")
        from conditional_detr.runs import open_run

        open_run(resume, overrides)  # refuse invalid settings before importing torch
        from conditional_detr.allocator import keep_freed_memory
        from conditional_detr.training import report, starting

        keep_freed_memory()
        summary = starting.resume(resume, report.ConsoleReporter(console()), overrides, started=started)
    else:
        if not settings:
            raise SettingsError(f"name a preset or a YAML file; presets: {', '.join(preset_names())}")
        values = load_settings(settings[0], settings[1:])  # refuse invalid settings before importing torch
        from conditional_detr.allocator import keep_freed_memory
        from conditional_detr.training import report, starting

        keep_freed_memory()
        summary = starting.train(values, report.ConsoleReporter(console()), started=started)
    if starting.is_main_process():
        tell(summary)
    if not summary.finished:
        raise typer.Exit(1)


def tell(summary: "Summary") -> None:
    """Print the result of a run, the paths of its files, and the next command."""
    run = summary.run.path
    if not summary.finished:
        say(f"stopped after step {summary.step} and saved everything; resume with: cdetr train --resume {run}")
        return
    if summary.model_epoch is not None:
        say(_about_the_model(summary))
    for what, path in (
        ("best model", summary.run.best_model),
        ("last model", summary.run.last_model),
        ("curves", summary.run.plots / "curves.png"),
        ("pictures", summary.run.plots / "predictions.jpg"),
        ("augmented", summary.run.augmented),
        ("report", summary.run.report / "index.html"),
    ):
        if path.exists():
            say(f"{what:12s} {path}")
    say(f"metrics      {summary.run.metrics}")
    say(f"predict with: cdetr predict {run} IMAGE ...")


def _about_the_model(summary: "Summary") -> str:
    """Return which epoch the best model is of, and why it is the best."""
    best, epoch = summary.best, f"after epoch {summary.model_epoch:.4g}"
    if best is not None and best["AP"] > 0:
        text = f"best AP {best['AP']:.3f} (AP50 {best['AP50']:.3f}) {epoch}"
    else:
        reason = "there is no evaluation"
        if best is not None:
            reason = "AP is 0 in all evaluations" if best["AP"] == 0 else "AP can't be measured without boxes to find"
        text = f"{reason}: the best model is the newest, {epoch}"
    if summary.left_out:
        text += f"; {summary.left_out} images that can't be used were left out"
    return text
