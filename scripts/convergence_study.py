"""Repeat the study of docs/convergence.md: train all of its runs in parallel, and print its tables.

python scripts/convergence_study.py FOLDER [PART ...] [--jobs N] [--data DATA] [--report]

PART: main (Conditional DETR against DETR, with the search for learning rates), ablations, recipes or real; by default all.
Existing runs in FOLDER are resumed, not repeated. --report trains nothing and prints the tables of existing runs. DATA: folder
of bccd/ and vehicles/, for real. N: number of parallel runs, by default the number of cores, because each run has one thread.
On two cores, the training steps of main took 50 minutes, of ablations and recipes 25 each, of real 16.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from conditional_detr.data.shapes import write_shapes
from conditional_detr.explain.convergence import Curve, read_curve
from conditional_detr.explain.plots import plot_convergence

CONDITIONAL, DETR = "conditional-detr_tiny_shapes", "detr_tiny_shapes"
SMALLER = ("data.short_sides=[64]", "data.max_size=64", "data.eval_short_side=64", "data.eval_max_size=64")  # 64 cells
LEVELS = (0.3, 0.5, 0.6)
REAL_LEVELS = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Variant:
    """Runs that differ only in the seed."""

    name: str
    lr: float
    changes: tuple[str, ...] = ()
    preset: str = CONDITIONAL
    seeds: tuple[int, ...] = (0, 1, 2)

    def settings(self, seed: int) -> list[str]:
        groups = ["train.query_groups=1"] if self.preset == CONDITIONAL else []  # as published
        return [f"train.lr={self.lr:g}", f"train.lr_backbone={self.lr:g}", f"train.seed={seed}", *groups, *self.changes]

    def run(self, seed: int) -> str:
        """Return the name of the run folder."""
        return f"{self.name}_lr{self.lr:g}_seed{seed}"


def on_real_images(images: str, *settings: str) -> list[Variant]:
    """Return variants of both detectors. images: data set and its image folder, separated by a slash."""
    data, _, folder = images.partition("/")
    where = (f"root={data}/coco", f"train_images={data}/{folder}", f"val_images={data}/{folder}", "workers=0")
    common = (*(f"data.{each}" for each in where), "train.batch_size=8", "train.base_batch_size=8", *settings)
    five_times = [
        f"train.epochs={5 * int(each.partition('=')[2])}" for each in settings if each.startswith("train.epochs")
    ]
    return [
        Variant(f"real-{data}-conditional", 1e-3, (*common, "evaluation.every=2"), seeds=(0,)),
        Variant(f"real-{data}-detr", 5e-4, (*common, *five_times, "evaluation.every=4"), DETR, (0,)),
    ]


BEST = [Variant("conditional", 2e-3), Variant("detr", 5e-4, (), DETR)]  # best learning rates of those tried
USUAL = Variant("conditional", 1e-3)  # the preset, baseline of single changes
MAIN = [
    *BEST,
    USUAL,
    Variant("conditional", 5e-4, seeds=(0,)),
    Variant("conditional", 4e-3, seeds=(0,)),
    Variant("detr", 1e-3, (), DETR, (0,)),
    Variant("detr", 2.5e-4, ("train.max_steps=3750",), DETR, (0,)),  # half of its schedule is enough
]
ABLATIONS = [
    USUAL,
    Variant("no-query-scale", 1e-3, ("model.ablate=[query_scale]",)),
    Variant("no-reference-points", 1e-3, ("model.ablate=[reference_points]",)),
    Variant("no-spatial-projection", 1e-3, ("model.ablate=[spatial_projection]",)),
    Variant("softmax", 1e-3, ("model.classification=softmax",)),
    Variant("detr-sigmoid", 5e-4, ("model.classification=sigmoid", "model.class_prior=0.1"), DETR, (0,)),
]
RECIPES = [
    USUAL,
    Variant("groups3", 1e-3, ("train.query_groups=3",)),
    Variant("ema", 1e-3, ("train.ema_decay=0.99",)),
    BEST[0],
    *(Variant(f"groups{count}", 2e-3, (f"train.query_groups={count}",)) for count in (3, 6, 11)),
]
BCCD = ("data.short_sides=[128,144]", "data.max_size=192", "data.eval_short_side=128", "data.eval_max_size=192")
VEHICLES = ("data.short_sides=[112,128]", "data.max_size=144", "data.eval_short_side=112", "data.eval_max_size=144")
REAL = [
    *on_real_images("bccd/voc/JPEGImages", *BCCD, "model.queries=60", "train.epochs=24"),
    *on_real_images("vehicles/yolo", *VEHICLES, "train.epochs=16"),
]
PARTS = {"main": MAIN, "ablations": ABLATIONS, "recipes": RECIPES, "real": REAL}


def train(folder: Path, data: Path, each: Variant, seed: int) -> None:
    """Train a run, or resume it if it exists."""
    name = each.run(seed)
    if (folder / name / "config.yaml").exists():
        arguments = ["--resume", str(folder / name)]
    else:
        shapes = [] if each in REAL else [f"data.root={folder / 'shapes'}", "evaluation.every=1", *SMALLER]
        arguments = [each.preset, f"train.output={folder}", f"train.name={name}", *shapes, *each.settings(seed)]
    with (folder / f"{name}.log").open("a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "conditional_detr.cli.main", "train", *arguments],
            cwd=data if each in REAL else folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    print(f"{'failed, see its .log' if done.returncode else 'done'}: {name}", file=sys.stderr, flush=True)


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median, with minimum and maximum if there are several values."""
    median = f"{statistics.median(values):.{digits}f}"
    return median if len(values) == 1 else f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def row(each: Variant, curves: Sequence[Curve], levels: Sequence[float]) -> str:
    """Return a line of a table: epochs to every level, over the runs that reached it, and the final AP."""
    cells: list[str] = []
    for level in levels:
        reached = [point for point in (curve.reached(level) for curve in curves) if point is not None]
        few = f", {len(reached)} of {len(curves)} runs" if 0 < len(reached) < len(curves) else ""
        cells.append(spread([p.epoch for p in reached], 1) + few if reached else f"> {curves[0].epochs:.3g}")
    final = spread([curve.points[-1].ap for curve in curves], 3)
    return f"| {each.name} | {each.lr:g} | {len(curves)} | {curves[0].epochs:.3g} | {' | '.join(cells)} | {final} |"


def table(folder: Path, variants: Sequence[Variant], levels: Sequence[float]) -> list[str]:
    """Return a table in Markdown, with medians and ranges over the seeds."""
    head = ["variant", "lr", "seeds", "epochs", *(f"epochs to AP {level:g}" for level in levels), "final AP"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for each in variants:
        curves = [read_curve(folder / each.run(seed)) for seed in each.seeds if (folder / each.run(seed)).exists()]
        if curves and all(curve.points for curve in curves):
            lines.append(row(each, curves, levels))
    return lines


def ratios(folder: Path) -> str:
    """Return DETR's median epochs to each level divided by Conditional DETR's, as text."""
    times: list[str] = []
    for level in LEVELS:
        medians: list[float] = []
        for each in BEST:
            reached = [read_curve(folder / each.run(seed)).reached(level) for seed in each.seeds]
            medians.append(statistics.median(float("inf") if point is None else point.epoch for point in reached))
        times.append(f"{medians[1] / medians[0]:.1f} to AP {level:g}")
    return f"DETR's median epochs divided by Conditional DETR's: {', '.join(times)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--data", type=Path, default=Path("/data"))
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_intermixed_args()
    folder, data, parts = arguments.folder.resolve(), arguments.data.resolve(), arguments.parts or list(PARTS)
    if not set(parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    if not arguments.report:
        if not (folder / "shapes").exists():
            write_shapes(folder / "shapes", {"train": 2000, "val": 300}, seed=0)
        runs = dict.fromkeys((each, seed) for part in parts for each in PARTS[part] for seed in each.seeds)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda run: train(folder, data, *run), runs))
    for part in parts:
        print(f"\n{part}\n\n" + "\n".join(table(folder, PARTS[part], REAL_LEVELS if part == "real" else LEVELS)))
        if part == "main" and all((folder / each.run(seed)).exists() for each in BEST for seed in each.seeds):
            print(f"\n{ratios(folder)}")
            titles = {"conditional": "Conditional DETR", "detr": "DETR"}
            runs_of_both = [(each, seed) for each in BEST for seed in each.seeds]
            curves = [
                replace(read_curve(folder / each.run(seed)), name=titles[each.name]) for each, seed in runs_of_both
            ]
            plot_convergence(curves, folder / "convergence.png")


if __name__ == "__main__":
    main()
