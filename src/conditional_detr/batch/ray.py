"""Compute shards on a Ray cluster, or with several processes of this machine, by actors that load the detector once.

A row of Ray Data is a shard: an actor computes it and writes its file. So results never pass through the driver, and a shard whose
process or node died is computed again by another actor.
"""

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from conditional_detr.batch.local import OnImages, compute
from conditional_detr.batch.shards import BatchFolder
from conditional_detr.batch.storage import protocol_of
from conditional_detr.errors import InputError, RunError, SettingsError

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector

NEEDS = "pip install 'conditional-detr[ray]'"
_AHEAD = 2  # shards that an actor has been given, so that it need not wait for the driver


def run_on_ray(
    open_detector: "Callable[[], Detector]",
    folder: BatchFolder,
    paths: Sequence[str],
    shards: Sequence[int],
    on_images: OnImages,
    *,
    actors: int | None = None,
    gpus_per_actor: float | None = None,
    retries: int = 3,
) -> None:
    """Compute and write shards with actors of Ray, on the cluster that ``RAY_ADDRESS`` names or that runs here, else on this machine.

    open_detector: what each actor calls; it must find the model on every node. actors: their number at most; by default as many as
    fit. gpus_per_actor: GPUs of each, or a fraction of one; by default 1 where there are GPUs. retries: how often a shard is computed
    again after its process or node died. All nodes must reach the images and the folder.

    Raises ``SettingsError`` when Ray is not installed, for settings that no node can meet, and for a model that is another one on
    a node; ``RunError`` when shards were given up. What is finished stays.
    """
    for address in (folder.address, *paths[:1]):
        if protocol_of(address) == "memory":
            raise SettingsError(f"{address} is in the memory of one process; name files that all processes reach")
    with _connected() as ray:
        gpus, count = _resources(ray, actors, gpus_per_actor)
        rows = [{"shard": shard, "paths": list(folder.plan.paths_of(shard, paths))} for shard in shards]
        dataset = ray.data.from_items(
            rows, override_num_blocks=len(rows)
        ).map(
            ShardActor,
            fn_constructor_kwargs={"open_detector": open_detector, "folder": folder, "tries": _tries(ray, retries + 1)},
            compute=_pool(ray, min(count, len(rows))),
            num_cpus=1 if gpus == 0 else 0.1,  # a GPU is the scarce one
            num_gpus=gpus,  # Ray restarts actors and repeats what they were doing without an end; ``Tries`` counts starts
        )
        try:
            failure = _counted(dataset, on_images)
        except Exception as error:  # Ray and Ray Data raise types without a common base
            raise RunError(f"Ray ended early ({_first_line(error)})") from error
    if failure is not None:
        raise failure


def _counted(dataset: Any, on_images: OnImages) -> InputError | RunError | None:
    """Count the images of finished shards, and return the first error of those that could not be computed."""
    failure: InputError | RunError | None = None
    for row in dataset.iter_rows():
        on_images(int(row["images"]))
        if row["error"] and failure is None:
            kind = SettingsError if row["is_input"] else RunError
            failure = kind(str(row["error"]))
    return failure


class Tries:
    """Counts how often shards were begun, in a process of its own, which outlives those that compute."""

    def __init__(self, most: int) -> None:
        self._most, self._begun = most, Counter[int]()

    def begin(self, shard: int) -> bool:
        """Tell whether a shard may be computed once more."""
        self._begun[shard] += 1
        return self._begun[shard] <= self._most


def _tries(ray: Any, most: int) -> Any:
    """Return ``Tries`` on the node of the driver, because the command ends with that node anyway."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Tries).options(num_cpus=0, scheduling_strategy=here).remote(most)


class ShardActor:
    """Loads the detector once, and computes shards."""

    def __init__(self, open_detector: "Callable[[], Detector]", folder: BatchFolder, tries: Any) -> None:
        from conditional_detr.inference.fingerprint import fingerprint

        self._folder, self._tries, self._error = folder, tries, ""
        try:
            self._detector = open_detector()
            if fingerprint(self._detector) != folder.plan.model:
                self._error = "the model on a node is another one than here; put the same files on all nodes"
        except InputError as error:  # raised here, it would be tried again without an end
            self._error = f"the model can't be opened on a node: {error}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard, paths = int(row["shard"]), [str(path) for path in row["paths"]]
        result = {"shard": shard, "images": 0, "error": self._error, "is_input": bool(self._error)}
        if self._error:
            return result
        try:
            if not self._folder.is_done(shard):  # it is when only the answer was lost with a node
                if not import_ray().get(self._tries.begin.remote(shard)):
                    raise RunError(
                        f"shard {shard} ({paths[0]} and {len(paths) - 1} more images) was given up, because each process that computed "
                        f"it died; look for images that take too much memory"
                    )
                self._folder.write(shard, compute(self._detector, self._folder.plan, paths))
        except (InputError, RunError, OSError) as error:
            return {**result, "error": str(error), "is_input": isinstance(error, InputError)}
        return {**result, "images": len(paths)}


def import_ray() -> Any:
    """Return Ray with Ray Data. Raises ``SettingsError`` when it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a library reports nothing to others on its own account
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an exception
    try:
        import ray

        import_module("ray.data")
    except ImportError as error:
        raise SettingsError(f"this engine needs Ray Data: {NEEDS}", argument="engine") from error
    return ray


@contextmanager
def _connected() -> Generator[Any]:
    """Yield Ray, connected to the cluster that is there or else to processes that are started here and end with the block."""
    ray = import_ray()
    ours, on_sigterm = not ray.is_initialized(), signal.getsignal(signal.SIGTERM)
    try:
        if ours:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # which Ray replaces
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise SettingsError(
            f"Ray can't be reached at {where} ({_first_line(error)}); start it, or correct or unset RAY_ADDRESS"
        ) from error
    context = ray.data.DataContext.get_current()
    shown = context.enable_progress_bars
    logger = logging.getLogger("ray.data")
    level = logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        context.enable_progress_bars = shown
        logger.setLevel(level)
        if ours:
            ray.shutdown()


def _resources(ray: Any, actors: int | None, gpus_per_actor: float | None) -> tuple[float, int]:
    """Return the GPUs of each actor and the number of actors. Raises ``SettingsError`` for GPUs that the cluster does not have."""
    there = ray.cluster_resources()
    all_gpus, cpus = float(there.get("GPU", 0)), float(there.get("CPU", 0))
    gpus = float(all_gpus > 0) if gpus_per_actor is None else gpus_per_actor
    if gpus > all_gpus:
        raise SettingsError(
            f"an actor would need {gpus:g} GPUs, and the cluster has {all_gpus:g}; give fewer",
            argument="gpus_per_actor",
        )
    fits = max(1, int(all_gpus / gpus if gpus else cpus))
    return gpus, fits if actors is None else actors


def _pool(ray: Any, size: int) -> Any:
    """Return a pool of actors that starts whole and may shrink, because an actor that waits for a lost node needs room at the end."""
    return ray.data.ActorPoolStrategy(
        min_size=1, max_size=size, initial_size=size, max_tasks_in_flight_per_actor=_AHEAD
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
