"""Convergence of runs: AP over epochs, steps and time, and the point at which a given AP was reached."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

from conditional_detr.errors import DataError
from conditional_detr.files import lines_of
from conditional_detr.metrics_file import LONGEST_LINE, tell_once
from conditional_detr.runs import best_of, open_run, read_metrics

_REMEDY = "give a run folder or a .log.json file of MMDetection"
_LARGEST = 1e15  # no number of a log is as large


class Point(NamedTuple):
    """An evaluation of a run.

    epoch, step, seconds: epochs, optimizer steps and seconds of training before it. ap: AP in 0..1.
    """

    epoch: float
    step: float
    seconds: float
    ap: float


@dataclass(frozen=True)
class Curve:
    """All evaluations of a run so far in which AP could be measured.

    epochs: epochs trained. planned: epochs of the whole run; None if unknown or not given in epochs.
    """

    name: str
    points: tuple[Point, ...]
    epochs: float
    planned: int | None

    @property
    def best(self) -> Point | None:
        """The best evaluation, as in ``runs.best_of``; None without evaluations."""
        best = best_of([point.ap for point in self.points])
        return None if best is None else self.points[best]

    def reached(self, ap: float) -> Point | None:
        """Return the point at which the curve first reached ``ap`` (above 0), or None.

        AP is interpolated linearly between evaluations, from AP 0 at the start.
        """
        for before, after in pairwise((Point(0.0, 0.0, 0.0, 0.0), *self.points)):
            if after.ap >= ap:
                part = (ap - before.ap) / (after.ap - before.ap) if after.ap > before.ap else 1.0
                return Point(*(a + part * (b - a) for a, b in zip(before, after, strict=True)))
        return None


def read_curve(source: Path) -> Curve:
    """Read the evaluations of a run folder, finished or not, or of a ``.log.json`` or ``scalars.json`` of MMDetection.

    Raises ``DataError`` for a file that is no such log, and ``CheckpointError`` for a folder that is not a run folder.
    """
    if source.is_dir():
        run, settings = open_run(source)
        records = read_metrics(run.metrics)
        evaluations = [record for record in records if record["kind"] == "evaluation" and record["AP"] >= 0]
        timed = [record for record in evaluations if "seconds" in record]
        if len(timed) < len(evaluations):
            left_out = len(evaluations) - len(timed)
            tell_once(f"{run.metrics}: left out {left_out} evaluations without seconds of training")
        points = [Point(*(float(record[key]) for key in ("epoch", "step", "seconds", "AP"))) for record in timed]
        epochs = max((float(record["epoch"]) for record in records), default=0.0)
        planned = None if settings.train.steps or settings.train.minutes else settings.train.epochs
        return Curve(source.resolve().name, tuple(points), epochs, planned)
    try:
        texts = [(line or b"").decode("utf-8-sig") for line in lines_of(source, LONGEST_LINE)]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{source} can't be read ({reason}); {_REMEDY}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not text; {_REMEDY}") from error
    points = _mmdetection_points(texts, source)
    if not points:
        raise DataError(f"{source} holds no evaluations of boxes (bbox_mAP); {_REMEDY}")
    name = source.name.removesuffix(".json").removesuffix(".log")
    return Curve(name, tuple(points), points[-1].epoch, None)


def _mmdetection_points(lines: Sequence[str], source: Path) -> list[Point]:
    """Read the evaluations in a log of MMDetection 2 or 3.

    Version 2 counts iterations within an epoch, version 3 from the start of the run ("step"). Both write a line after a fixed
    number of iterations, with the mean time of an iteration since the last line. Steps and times therefore cover logged
    iterations only, and miss up to one interval per epoch. In a log of version 2 that starts in the middle of a run, they
    count from there.
    """
    points: list[Point] = []
    step = seconds = 0.0
    epoch_start, epoch = 0.0, None
    damaged: list[int] = []
    for number, line in enumerate(lines, start=1):
        record = _numbers(line)
        if record is None:
            damaged.append(number)
            continue
        ap = record.get("coco/bbox_mAP", record.get("bbox_mAP"))
        if ap is not None:
            if ap > 1:
                raise DataError(f"{source} has bbox_mAP {ap:g}; give a log in which AP is from 0 to 1")
            now = record.get("epoch", record.get("step", 0.0))
            if "epoch" not in record and step and epoch is None:
                raise DataError(f"{source} counts iterations instead of epochs; only runs of epochs can be compared")
            if now > 0 and ap >= 0:
                points.append(Point(now, step, seconds, ap))
        elif "time" in record and ("step" in record or "iter" in record):
            if record.get("epoch") != epoch:
                epoch_start, epoch = step, record.get("epoch")
            now = record.get("step", epoch_start + record.get("iter", 0.0))
            seconds += record["time"] * max(now - step, 0)
            step = now
    if points and damaged and damaged[0] < len(lines):  # a kill cuts the last line short
        tell_once(f"{source}: left out {len(damaged)} lines that are not JSON, the first is line {damaged[0]}")
    return points


def _numbers(line: str) -> dict[str, float] | None:
    """Return the numbers in a line of JSON by key; None for a line that is not JSON."""
    try:
        record: Any = json.loads(line or "{}")
    except (ValueError, RecursionError):
        return None
    items = cast(dict[str, Any], record).items() if isinstance(record, dict) else ()
    # MMDetection writes NaN into its logs.
    return {key: float(value) for key, value in items if type(value) in (int, float) and abs(value) < _LARGEST}


def round_levels(curves: Sequence[Curve]) -> list[float]:
    """Return up to five round values of AP that the best run reached, for a table."""
    best = max((curve.best.ap for curve in curves if curve.best is not None), default=0.0)
    for unit in (0.1, 0.05, 0.02, 0.01):
        levels = [round(unit * i, 2) for i in range(1, int(best / unit + 1e-9) + 1)]
        if len(levels) >= 3:
            return levels[-5:]
    return []


class Comparison(NamedTuple):
    """Comparison of a run with a baseline at a given AP.

    point: point at which the run reached the AP; None if it has not. ratio: epochs of the baseline divided by epochs of the
    run; None if unknown. bound: "" for an exact ratio; ">" or "<" if only one of the two has reached the AP in its
    evaluations so far, so that the true ratio is greater or smaller.
    """

    point: Point | None
    ratio: float | None
    bound: str


def compare(curve: Curve, baseline: Curve, ap: float) -> Comparison:
    """Compare a run with a baseline at a given AP."""
    mine, theirs = curve.reached(ap), baseline.reached(ap)
    if mine is not None and theirs is not None:
        return Comparison(mine, _ratio(theirs, mine), "")
    if mine is not None and baseline.points:
        return Comparison(mine, _ratio(baseline.points[-1], mine), ">")
    if theirs is not None and curve.points:
        return Comparison(None, _ratio(theirs, curve.points[-1]), "<")
    return Comparison(mine, None, "")


def _ratio(slow: Point, fast: Point) -> float | None:
    """Return the ratio of epochs; None where a run had the AP before it began to train."""
    return slow.epoch / fast.epoch if fast.epoch > 1e-9 else None
