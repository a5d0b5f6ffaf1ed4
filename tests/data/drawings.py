"""Drawing functions for other processes, in a module that is quick to import."""

import os
import signal
import time
from functools import partial

import numpy as np
from PIL import Image

from conditional_detr.data.generated import Drawing, Recipe
from conditional_detr.record import Categories


def noise(rng: np.random.Generator, side: int) -> Drawing:
    pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    return Drawing(Image.fromarray(pixels), [(1, 2, 3, 4), (0, 0, side, side)], [7, 9])


def killed(rng: np.random.Generator) -> Drawing:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def slow(rng: np.random.Generator) -> Drawing:
    print("drawing", flush=True)
    time.sleep(60)
    raise AssertionError


def failing(rng: np.random.Generator) -> Drawing:
    raise OSError("no more pixels")


NOISE = Recipe("noise", partial(noise, side=16), Categories((7, 9), ("seven", "nine")))
