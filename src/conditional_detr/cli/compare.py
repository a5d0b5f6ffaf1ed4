"""``cdetr compare``."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conditional_detr.cli.log import say
from conditional_detr.cli.options import check_picture
from conditional_detr.cli.tables import aligned
from conditional_detr.errors import SettingsError

if TYPE_CHECKING:
    from conditional_detr.explain.convergence import Curve


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run folders, of finished or unfinished runs, or .log.json files of MMDetection."
        ),
    ],
    baseline: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Baseline of the ratios, one of RUN... (default: the first).")
    ] = None,
    ap: Annotated[
        list[float] | None, typer.Option(help="AP to reach, such as 0.3; may be repeated (default: round values).")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File of the plot of AP over epochs, steps and time.")
    ] = Path("compare.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare how fast runs learn, such as: cdetr compare runs/detr runs/conditional-detr"""
    from conditional_detr.explain.convergence import read_curve, round_levels
    from conditional_detr.explain.plots import plot_convergence

    check_picture(out, runs)
    for level in ap or ():
        if not 0 < level <= 1:
            raise SettingsError(f"--ap {level:g}: give an AP above 0 and at most 1, such as 0.3")
    places = {os.path.realpath(run): run for run in runs}
    sources = list(places.values())
    curves = [read_curve(source) for source in sources]
    often = Counter(curve.name for curve in curves)
    curves = [
        curve if often[curve.name] == 1 else replace(curve, name=str(source))
        for source, curve in zip(sources, curves, strict=True)
    ]
    place = os.path.realpath(sources[0] if baseline is None else baseline)
    if place not in places:
        raise SettingsError(f"--baseline {baseline} is not among the runs; give one of {', '.join(map(str, sources))}")
    reference = curves[list(places).index(place)]
    levels = ap or round_levels(curves)
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_convergence(curves, out)
    if as_json:
        typer.echo(json.dumps(_record(curves, reference, levels, out)))
        return

    say(*_summary(curves), *_levels(curves, reference, levels), f"picture  {out}")


def _summary(curves: "list[Curve]") -> list[str]:
    rows = [("run", "best AP", "at epoch", "epochs", "last evaluation: steps", "training time")]
    for curve in curves:
        best, last = curve.best, curve.points[-1] if curve.points else None
        planned = "" if curve.planned is None else f" of {curve.planned}"
        rows.append(
            (
                curve.name,
                "-" if best is None else f"{best.ap:.3f}",
                "-" if best is None else f"{best.epoch:.4g}",
                f"{curve.epochs:.4g}{planned}",
                "-" if last is None else f"{last.step:.0f}",
                "-" if last is None else _time(last.seconds),
            )
        )
    return aligned(rows, left=(0,))


def _levels(curves: "list[Curve]", reference: "Curve", levels: "list[float]") -> list[str]:
    """Return tables of the epochs and steps at which each run reached each AP, and of ratios to the baseline."""
    from conditional_detr.explain.convergence import compare

    if not levels:
        return ["no run has reached AP 0.01 yet"]
    header = [f"{level:g}" for level in levels]
    epochs = [["epochs to AP", *header]]
    steps = [["steps to AP", *header]]
    ratios = [["times faster", *header]]
    for curve in curves:
        found = [compare(curve, reference, level) for level in levels]
        points = [each.point for each in found]
        last = curve.points[-1] if curve.points else None
        never = ("-", "-") if last is None else (f"> {last.epoch:.4g}", f"> {last.step:.0f}")
        epochs.append([curve.name, *(f"{p.epoch:.1f}" if p else never[0] for p in points)])
        steps.append([curve.name, *(f"{p.step:.0f}" if p else never[1] for p in points)])
        ratios.append([curve.name, *("-" if e.ratio is None else f"{e.bound} {e.ratio:.1f}".strip() for e in found)])
    together = aligned([*epochs, *steps, *ratios], left=(0,))
    parts = [together[i : i + len(epochs)] for i in range(0, len(together), len(epochs))]
    return [line for part in parts for line in ("", *part)] + [_definition(reference)]


def _definition(reference: "Curve") -> str:
    return (
        f"Times faster: the epochs in which {reference.name} reached an AP, divided by those of the run. AP is interpolated "
        "linearly between evaluations. > N: not reached in the evaluations up to N; the ratio is then a bound."
    )


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _record(curves: "list[Curve]", reference: "Curve", levels: list[float], out: Path) -> dict[str, Any]:
    from conditional_detr.explain.convergence import compare

    def level(curve: "Curve", ap: float) -> dict[str, Any]:
        found = compare(curve, reference, ap)
        reached = None if found.point is None else {**found.point._asdict()}
        return {"AP": ap, "reached": reached, "ratio": found.ratio, "bound": found.bound}

    runs = [
        {
            "run": curve.name,
            "epochs": curve.epochs,
            "planned_epochs": curve.planned,
            "best": None if curve.best is None else curve.best._asdict(),
            "levels": [level(curve, ap) for ap in levels],
            "evaluations": [point._asdict() for point in curve.points],
        }
        for curve in curves
    ]
    return {"baseline": reference.name, "definition": _definition(reference), "picture": str(out), "runs": runs}
