"""``cdetr batch``."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conditional_detr.cli.log import note, say
from conditional_detr.cli.options import (
    Boxes,
    Compile,
    Dilation,
    Names,
    Optimize,
    Runtime,
    Source,
    open_detector,
    tell_runtime,
    threshold_of,
)
from conditional_detr.cli.pace import Pace
from conditional_detr.cli.signals import signals_interrupt
from conditional_detr.errors import RunError, SettingsError
from conditional_detr.text import counted

if TYPE_CHECKING:
    from conditional_detr.batch.shards import BatchFolder
    from conditional_detr.inference.detector import Detector, Threshold


def command(
    source: Source,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders, glob patterns, lists (.txt, or .parquet with a column path), .tar files or images; paths or URLs.",
        ),
    ],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for the results, a path or a URL.")],
    engine: Annotated[str, typer.Option(metavar="local|ray", help="What computes: this process, or Ray.")] = "local",
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Compute only part I of N, for array jobs: 1/N to N/N.")
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Images per file of results, and lost by a kill.")] = 1000,
    threshold: Annotated[
        str, typer.Option(metavar="SCORE|auto", help="Minimum score, in 0..1; auto: the best one of each category.")
    ] = "0.5",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images per batch; above 1, images of different sizes are padded.")
    ] = 1,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Ray: processes with a model at most (default: what fits).")
    ] = None,
    gpus_per_actor: Annotated[
        float | None, typer.Option(min=0, help="Ray: GPUs of each actor, such as 0.5 (default: 1 if there are GPUs).")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Ray: how often a shard of a lost process is repeated.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    optimize: Optimize = False,
    compile: Compile = False,
    runtime: Runtime = "auto",
    dilation: Dilation = None,
    boxes: Boxes = None,
    names: Names = None,
) -> None:
    """Find objects in millions of images, and write Parquet files. The same command goes on after a stop.

    Images that can't be used are rows with an error, and the exit code is then 2.
    """
    from conditional_detr.batch.plan import parse_part

    if engine not in ("local", "ray"):
        raise SettingsError(f"engine {engine!r} does not exist; give local or ray", argument="engine")
    job = _Job(
        inputs=inputs,
        out=out,
        part=parse_part(shard),
        threshold=threshold_of(threshold),
        shard_size=shard_size,
        batch_size=batch_size,
        optimize=optimize or compile,
        open_detector=partial(
            open_detector,
            _from_anywhere(source),
            dilation=dilation,
            boxes=boxes,
            names=names and _from_anywhere(names),
            runtime=runtime,
            optimize=optimize,
            compile=compile,
        ),
        on_ray={"actors": actors, "gpus_per_actor": gpus_per_actor, "retries": retries} if engine == "ray" else None,
    )
    reason = ""
    try:
        with signals_interrupt():
            job.run()
    except KeyboardInterrupt:
        reason = "interrupted"
    except OSError as error:
        if job.folder is None:
            raise
        reason = f"{error.filename or out} can't be read or written ({error.strerror or error})"
    except RunError as error:
        reason = str(error)
    if reason:
        note(f"error: {reason}: {job.kept()}")
        raise typer.Exit(1)
    job.summarize(as_json)


@dataclass(kw_only=True)
class _Job:
    """What one command computes: the shards of its part. on_ray: settings of that engine; None to compute here."""

    inputs: list[str]
    out: str
    part: tuple[int, int]
    threshold: "Threshold"
    shard_size: int
    batch_size: int
    optimize: bool
    open_detector: "Callable[..., Detector]"
    on_ray: dict[str, Any] | None
    folder: "BatchFolder | None" = None
    shards: range = range(0)
    computed: int = 0
    seconds: float = 0.0

    def run(self) -> None:
        from conditional_detr.batch.listing import list_images
        from conditional_detr.batch.plan import make_plan
        from conditional_detr.batch.shards import BatchFolder

        if self.on_ray is not None:
            from conditional_detr.batch.ray import import_ray

            import_ray()  # a missing package is told before millions of images are listed
        paths = list_images(self.inputs)
        detector = self.open_detector("cpu" if self.on_ray is not None else None)
        tell_runtime(detector)
        plan = make_plan(
            detector,
            paths,
            self.threshold,
            shard_size=self.shard_size,
            batch_size=self.batch_size,
            optimize=self.optimize,
        )
        folder = BatchFolder(self.out, plan)
        folder.begin()
        part, parts = self.part
        self.folder, self.shards = folder, range(part - 1, plan.shards, parts)
        done = folder.done(self.shards)
        before = sum(each.images for each in done.values())
        todo = [each for each in self.shards if each not in done]
        if done:
            note(f"{len(done)} of {len(self.shards)} shards are done already")
        if todo:
            self._compute(detector, folder, paths, todo, before)

    def _compute(
        self, detector: "Detector", folder: "BatchFolder", paths: list[str], todo: list[int], before: int
    ) -> None:
        ours = sum(len(folder.plan.range_of(each)) for each in self.shards)
        started = time.perf_counter()
        with Pace(ours, before) as pace:
            try:
                if self.on_ray is None:
                    from conditional_detr.batch.local import run

                    run(detector, folder, paths, todo, pace.advance)
                else:
                    from conditional_detr.batch.ray import run_on_ray

                    del detector  # the actors have their own
                    run_on_ray(self.open_detector, folder, paths, todo, pace.advance, **self.on_ray)
            finally:
                self.computed, self.seconds = pace.images, time.perf_counter() - started

    def kept(self) -> str:
        """Say what remains of a command that ended early, and how to go on."""
        if self.folder is None:
            return "nothing was computed; give the same command again"
        done = len(self.folder.finished().intersection(self.shards))
        return f"{done} of {len(self.shards)} shards are done and kept in {self.folder.address}; the same command goes on from there"

    def summarize(self, as_json: bool) -> None:
        """Print what the shards of this command hold. Raises ``Exit`` when images have errors."""
        from conditional_detr.batch.shards import Counts

        folder = self.folder
        assert folder is not None
        counts = sum(folder.done(self.shards).values(), start=Counts())
        if complete := len(folder.finished()) == folder.plan.shards:
            folder.clean()
        rate = self.computed / self.seconds if self.seconds else None
        if as_json:
            numbers = {"shards": len(self.shards), "computed": self.computed, "seconds": round(self.seconds, 3)}
            whole = {"complete": complete, "out": folder.address}
            typer.echo(
                json.dumps({**counts._asdict(), **numbers, "images_per_second": rate and round(rate, 3), **whole})
            )
        else:
            where = "" if self.part == (1, 1) else f" of part {self.part[0]}/{self.part[1]}"
            speed = f" at {rate:.1f} images/s" if rate else ""
            say(
                f"{counted(counts.objects, 'object')} in {counted(counts.images - counts.errors, 'image')}{where}{speed}; results are in {folder.address}/shards"
            )
        if counts.errors:
            say(f"{counts.errors} of {counts.images} images have an error, which their rows tell", err=True)
            raise typer.Exit(2)


def _from_anywhere(text: str) -> str:
    """Return the absolute path of a file or folder, because actors have another current folder, and other texts as they are."""
    return os.path.abspath(text) if os.path.exists(text) else text
