"""Random choices."""

import math
from collections.abc import Sequence
from typing import TypeVar

from conditional_detr.data.scenes.arrays import Number, Random

_T = TypeVar("_T")


def between(rng: Random, low: Number, high: Number) -> float:
    return low + (high - low) * rng.random()  # five times as fast as rng.uniform


def log_uniform(rng: Random, low: Number, high: Number) -> float:
    return low * math.exp(rng.random() * math.log(high / low))


def chance(rng: Random, probability: Number) -> bool:
    return rng.random() < probability


def one_of(rng: Random, choices: Sequence[_T]) -> _T:
    return choices[int(rng.integers(len(choices)))]


def weighted(rng: Random, choices: Sequence[tuple[_T, float]]) -> _T:
    """Return the first of a pair, in proportion to the second."""
    rest = rng.random() * sum(share for _, share in choices)
    for choice, share in choices:
        rest -= share
        if rest < 0:
            return choice
    return choices[-1][0]  # rounding
