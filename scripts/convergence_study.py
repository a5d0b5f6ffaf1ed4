"""The study of docs/convergence.md: trains all of its runs, two at a time, and prints its tables.

python scripts/convergence_study.py FOLDER [PART ...] [--jobs N]

PART: main (Conditional DETR against DETR, with the search for learning rates), ablations, recipes, real; all when none is
given. Runs that exist in FOLDER are finished, not repeated. Real images are read from ../shared/data. Each run has one
thread, so that as many jobs as cores make the best of a machine; two cores need about six hours for everything.
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

DATA = Path(__file__).parents[2] / "shared" / "data"
CONDITIONAL, DETR = "conditional-detr_tiny_shapes", "detr_tiny_shapes"
SMALLER = ("short_sides=[64]", "max_size=64", "eval_short_side=64", "eval_max_size=64")  # 64 cells instead of 144
LEVELS = (0.3, 0.5, 0.6)
REAL_LEVELS = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Variant:
    """Runs that differ in the seed only."""

    name: str
    preset: str
    lr: float | None = None
    changes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)

    def settings(self, seed: int) -> list[str]:
        rates = [] if self.lr is None else [f"train.lr={self.lr:g}", f"train.lr_backbone={self.lr:g}"]
        return [*rates, f"train.seed={seed}", *self.changes]

    def run(self, seed: int) -> str:
        """Name of its folder."""
        return f"{self.name}_lr{self.lr:g}_seed{seed}" if self.lr is not None else f"{self.name}_seed{seed}"


CHOSEN = {CONDITIONAL: 1e-3, DETR: 5e-4}  # by the search below


def variant(name: str, *changes: str, preset: str = CONDITIONAL, seeds: Sequence[int] = (0, 1, 2)) -> Variant:
    return Variant(name, preset, CHOSEN[preset], changes, tuple(seeds))


def on_real_images(data: str, images: str, sides: str, *settings: str) -> list[Variant]:
    """Both detectors; images: the folder of images below that of the data set."""
    where = [
        f"root={DATA / data / 'coco'}",
        f"train_images={DATA / data / images}",
        f"val_images={DATA / data / images}",
    ]
    common = [f"data.{setting}" for setting in (*where, *sides.split())]
    common += ["train.batch_size=8", "train.base_batch_size=8", *settings]
    return [
        Variant(f"real-{data}-conditional", CONDITIONAL, None, (*common, "evaluation.every=2"), (0,)),
        Variant(f"real-{data}-detr", DETR, None, (*common, "evaluation.every=4"), (0,)),
    ]


MAIN = [
    variant("conditional"),
    variant("detr", preset=DETR),
    Variant("conditional", CONDITIONAL, 5e-4, seeds=(0,)),
    Variant("conditional", CONDITIONAL, 2e-3, seeds=(0,)),
    Variant("detr", DETR, 1e-3, seeds=(0,)),
    Variant("detr", DETR, 2.5e-4, ("train.max_steps=3750",), seeds=(0,)),  # half of its schedule shows enough
]
ABLATIONS = [
    variant("no-query-scale", "model.ablate=[query_scale]"),
    variant("no-reference-points", "model.ablate=[reference_points]"),
    variant("no-spatial-projection", "model.ablate=[spatial_projection]"),
    variant("softmax", "model.classification=softmax"),
    variant("detr-sigmoid", "model.classification=sigmoid", "model.class_prior=0.1", preset=DETR, seeds=[0]),
]
RECIPES = [
    variant("iou-aware", "loss.iou_aware=true"),
    variant("groups3", "train.query_groups=3"),
    variant("ema", "train.ema_decay=0.99"),
    variant("centre", "model.reference_start=centre"),
    variant("uniform", "model.reference_start=uniform"),
]
REAL = [
    *on_real_images(
        "bccd",
        "voc/JPEGImages",
        "short_sides=[128,144] max_size=192 eval_short_side=128 eval_max_size=192",
        "model.queries=60",
    ),
    *on_real_images("vehicles", "yolo", "short_sides=[112,128] max_size=144 eval_short_side=112 eval_max_size=144"),
]
PARTS = {"main": MAIN, "ablations": ABLATIONS, "recipes": RECIPES, "real": REAL}


def train(folder: Path, each: Variant, seed: int) -> None:
    """Train a run, or finish it."""
    name = each.run(seed)
    if (folder / name / "config.yaml").exists():
        arguments = ["--resume", str(folder / name)]
    else:
        shapes = [] if each in REAL else ["evaluation.every=1", *(f"data.{side}" for side in SMALLER)]
        shapes += [] if each in REAL else [f"data.root={folder / 'shapes'}"]
        arguments = [each.preset, f"train.output={folder}", f"train.name={name}", *shapes, *each.settings(seed)]
    with (folder / f"{name}.log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "conditional_detr.cli.main", "train", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    print(f"done: {name}", file=sys.stderr, flush=True)


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and least and greatest where there are several."""
    median = f"{statistics.median(values):.{digits}f}"
    return median if len(values) == 1 else f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def row(each: Variant, curves: Sequence[Curve], levels: Sequence[float]) -> str:
    """A line of a table: epochs to every level and the final AP."""
    cells: list[str] = []
    for level in levels:
        reached = [point for point in (curve.reached(level) for curve in curves) if point is not None]
        few = f", {len(reached)} of {len(curves)} runs" if 0 < len(reached) < len(curves) else ""
        cells.append(spread([p.epoch for p in reached], 1) + few if reached else f"> {curves[0].epochs:.3g}")
    final = spread([curve.points[-1].ap for curve in curves], 3)
    rate = "" if each.lr is None else f"{each.lr:g}"
    return f"| {each.name} | {rate} | {len(curves)} | {curves[0].epochs:.3g} | {' | '.join(cells)} | {final} |"


def table(folder: Path, variants: Sequence[Variant], levels: Sequence[float]) -> list[str]:
    """Markdown: medians over the seeds, with the range."""
    head = ["variant", "lr", "seeds", "epochs", *(f"epochs to AP {level:g}" for level in levels), "final AP"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for each in variants:
        curves = [read_curve(folder / each.run(seed)) for seed in each.seeds if (folder / each.run(seed)).exists()]
        if curves and all(curve.points for curve in curves):
            lines.append(row(each, curves, levels))
    return lines


def ratios(folder: Path) -> str:
    """Of the medians of epochs to each level."""
    epochs = [
        [
            statistics.median(read_curve(folder / each.run(seed)).reached(level).epoch for seed in each.seeds)
            for level in LEVELS
        ]
        for each in (MAIN[1], MAIN[0])
    ]
    times = (f"{slow / fast:.1f} to AP {level:g}" for slow, fast, level in zip(*epochs, LEVELS, strict=True))
    return f"DETR's median epochs divided by Conditional DETR's: {', '.join(times)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    folder, parts = arguments.folder.resolve(), arguments.parts or list(PARTS)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "shapes").exists():
        write_shapes(folder / "shapes", {"train": 2000, "val": 300}, seed=0)
    runs = [(each, seed) for part in parts for each in PARTS[part] for seed in each.seeds]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for _ in pool.map(lambda run: train(folder, *run), runs):
            pass
    for part in parts:
        baseline = [] if part in ("main", "real") else MAIN[:1]
        lines = table(folder, [*baseline, *PARTS[part]], REAL_LEVELS if part == "real" else LEVELS)
        print(f"\n{part}\n\n" + "\n".join(lines))
        if part == "main":
            print(f"\n{ratios(folder)}")
            titles = {"conditional": "Conditional DETR", "detr": "DETR"}
            curves = [
                replace(read_curve(folder / each.run(seed)), name=titles[each.name])
                for each in MAIN[:2]
                for seed in each.seeds
            ]
            plot_convergence(curves, folder / "convergence.png")


if __name__ == "__main__":
    main()
