"""What the generated data sets share: an image with its objects, random numbers per image, and writing a COCO folder."""

import io
import json
import os
import signal
import threading
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from conditional_detr.errors import DataError, RunError, SettingsError
from conditional_detr.files import is_free, whole_folder
from conditional_detr.record import Categories

if TYPE_CHECKING:
    from conditional_detr.data.headers import OnDone

_CHUNK = 32  # images that a process draws at a time
_MOST_WORKERS = 1024
_QUALITY = 92  # of JPEG files


class Drawing(NamedTuple):
    """An image and its objects. boxes: x, y, width, height in whole pixels. category_ids: an id per box."""

    image: Image.Image
    boxes: list[tuple[int, int, int, int]]
    category_ids: list[int]


Draw = Callable[[np.random.Generator], Drawing]


def random_numbers(seed: int, split: str, index: int) -> np.random.Generator:
    """Return the random numbers of one image, which depend on nothing but these arguments.

    Raises ``SettingsError`` for a negative seed or index.
    """
    if min(seed, index) < 0:
        raise SettingsError(f"the seed and the index of an image must not be negative, got {seed} and {index}")
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


class Recipe(NamedTuple):
    """How a data set is generated. draw: a function at the top of a module, or a ``partial`` of one, for other processes."""

    name: str
    draw: Draw
    categories: Categories
    format: Literal["PNG", "JPEG"] = "PNG"


def write_generated(
    root: Path,
    recipe: Recipe,
    images: Mapping[str, int],
    seed: int,
    *,
    workers: int = 0,
    on_image: "OnDone | None" = None,
) -> dict[str, int]:
    """Write a data set as a folder in COCO layout, completely or not at all. Return the number of objects per split.

    images: number of images per split. Image ``i`` of a split depends only on (seed, split, i), so a larger split starts with
    the images of a smaller one. workers: number of processes that draw; 0 draws in this one. on_image: called with the number
    of images done and of all. Raises ``DataError`` when ``root`` exists and is not an empty folder, ``SettingsError`` for an
    impossible number of workers, and ``RunError`` when one is killed.
    """
    if not 0 <= workers <= _MOST_WORKERS:
        raise SettingsError(
            f"the number of workers must be from 0 to {_MOST_WORKERS:,}, each of which is a process, got {workers}",
            argument="workers",
        )
    if not is_free(root):
        raise DataError(f"{root} exists and is not an empty folder; name a new one")
    total, done = sum(images.values()), 0
    objects: dict[str, int] = {}
    with whole_folder(root) as new, _mapping(workers) as apply:
        (new / "annotations").mkdir()
        for split, count in images.items():
            folder = new / f"{split}2017"
            folder.mkdir()
            content = _Content(folder, recipe)
            for encoded in apply(partial(_encoded, recipe, seed, split), count):
                content.add(encoded)
                done += 1
                if on_image is not None:
                    on_image(done, total)
            (new / "annotations" / f"instances_{split}2017.json").write_text(content.as_json(seed), encoding="utf-8")
            objects[split] = len(content.annotations)
    return objects


class _Encoded(NamedTuple):
    """A drawing whose image is a file. size: width, height."""

    data: bytes
    size: tuple[int, int]
    boxes: list[tuple[int, int, int, int]]
    category_ids: list[int]


def _encoded(recipe: Recipe, seed: int, split: str, index: int) -> _Encoded:
    image, boxes, category_ids = recipe.draw(random_numbers(seed, split, index))
    stream = io.BytesIO()
    image.save(stream, recipe.format, quality=_QUALITY)  # PNG has no quality and ignores it
    return _Encoded(stream.getvalue(), image.size, boxes, category_ids)


_Apply = Callable[[Callable[[int], _Encoded], int], Iterable[_Encoded]]


@contextmanager
def _mapping(workers: int) -> Generator[_Apply]:
    """Yield a function that applies a function to 0, 1, ... up to a count, in other processes if there are workers."""
    if workers == 0:
        yield lambda function, count: map(function, range(count))
        return
    # Spawned, because a fork of a process with threads, such as those of torch, may hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_follow)

    def apply(function: Callable[[int], _Encoded], count: int) -> Generator[_Encoded]:
        indices = iter(range(count))
        while part := list(islice(indices, _CHUNK * workers * 4)):  # images waiting to be written stay few
            yield from pool.map(function, part, chunksize=_CHUNK)

    try:
        yield apply
    except BrokenProcessPool as error:
        raise RunError("a drawing process was killed, perhaps because memory ran out; use fewer of them") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _follow() -> None:
    """Leave Ctrl-C to the first process, which ends the others, and end when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_first_process, daemon=True).start()


def _end_with_first_process() -> None:
    first = parent_process()
    if first is not None:
        first.join()
        os._exit(1)


class _Content:
    """Files of the images of a split, and its COCO annotations."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, drawing: _Encoded) -> None:
        image_id = len(self.images) + 1
        name = f"{image_id:06d}{'.png' if self.recipe.format == 'PNG' else '.jpg'}"
        (self.folder / name).write_bytes(drawing.data)
        width, height = drawing.size
        self.images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for box, category_id in zip(drawing.boxes, drawing.category_ids, strict=True):
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": list(box),
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )

    def as_json(self, seed: int) -> str:
        name, categories = self.recipe.name, self.recipe.categories
        named = [{"id": id_, "name": each} for id_, each in zip(categories.ids, categories.names, strict=True)]
        info = {"description": f"{name}, seed {seed}, generated by cdetr dataset {name}"}
        return json.dumps({"images": self.images, "annotations": self.annotations, "categories": named, "info": info})
