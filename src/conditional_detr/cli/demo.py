"""``cdetr demo``."""

from pathlib import Path
from typing import Annotated

import typer

from conditional_detr.errors import SettingsError

IMAGES = {"train": 2000, "val": 300, "test": 300}  # test is used neither for training nor for choosing the model
PICTURES = 12


def command(
    out: Annotated[Path, typer.Option(help="A new folder for data, run and pictures.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the initial weights and the order of the data.")] = 0,
) -> None:
    """Train a small detector in minutes on a CPU: generate data, train, evaluate and predict on unseen images."""
    from conditional_detr.allocator import keep_freed_memory
    from conditional_detr.cli.evaluate import print_table
    from conditional_detr.cli.log import console, say
    from conditional_detr.config import load_settings
    from conditional_detr.data.reading import read_coco
    from conditional_detr.data.shapes import write_shapes
    from conditional_detr.evaluation.coco import evaluate_detector
    from conditional_detr.inference.detector import Detector
    from conditional_detr.training import starting
    from conditional_detr.training.report import ConsoleReporter
    from conditional_detr.training.run_plots import SHOWN_ABOVE, SampleImages

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"{out} exists and is not an empty folder; remove it or choose another with --out")
    reporter = ConsoleReporter(console())
    console().print(f"1/3 making the data set shapes: {IMAGES['train']} training images")
    write_shapes(out / "shapes", IMAGES, seed=0)

    settings = load_settings(
        "conditional-detr_tiny_shapes",
        [f"data.root={out / 'shapes'}", f"train.output={out}", "train.name=run", f"train.seed={seed}"],
    )
    console().print("2/3 training; AP stays near 0 for the first epochs, then rises quickly")
    keep_freed_memory()
    summary = starting.train(settings, reporter)
    if not summary.finished:
        say(f"stopped; resume with: cdetr train --resume {summary.run.path}")
        raise typer.Exit(1)

    console().print(f"3/3 evaluating the best model on {IMAGES['test']} images that training never saw")
    detector = Detector.from_pretrained(summary.run.path)
    shapes = out / "shapes"
    data = read_coco(shapes / "annotations" / "instances_test2017.json", [shapes / "test2017"])
    metrics, _ = evaluate_detector(detector, data, settings.evaluation, settings.data.workers)
    print_table(metrics, data)
    samples = SampleImages(data, PICTURES)
    found = detector.predict([data.path(i) for i in samples.indices], SHOWN_ABOVE)
    page = out / "predictions.jpg"
    samples.draw(dict(zip(samples.image_ids, found, strict=True)), page)
    say(f"AP {metrics.values['AP']:.3f}, AP50 {metrics.values['AP50']:.3f} on unseen images: see the table above")
    say(f"predictions  {page}")
    say(f"curve        {summary.run.plots / 'curves.png'}")
    say(f"model        {summary.run.best_model}")
    say(f"use it with: cdetr predict {summary.run.path} IMAGE ...")
