"""Suggest settings for a data set from the sizes of its images and objects."""

import math
from dataclasses import dataclass

import numpy as np

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.inspection.statistics import box_sides

Value = int | bool | tuple[int, ...]

# The published recipe for COCO, which the suggestions scale.
_PUBLISHED = DataSettings()
_SMALLEST_SIDE = 0.6  # of training, as a fraction of the side of evaluation: 480 / 800
_QUERIES_PER_OBJECT = 3  # 300 for the 93 objects in the fullest image of COCO

_STRIDE = 32  # pixels per cell of the network's last feature map; sizes are multiples of it
_SMALL_OBJECT = 24  # pixels; images are enlarged until nine tenths of the objects have this side
_LARGEST_SCALE = 2  # more adds no detail
_FEWEST_QUERIES = 20
_MIXED = 0.1  # fraction of portrait or landscape images from which batching them separately pays
_SQUARE = 1.1  # ratio of longer to shorter side up to which all images are alike


@dataclass(frozen=True)
class Suggestion:
    """A setting that suits a data set. reason: why, in a few words."""

    key: str
    value: Value
    reason: str

    @property
    def override(self) -> str:
        """The setting as ``key=value``, which ``load_settings`` reads."""
        value = self.value
        if isinstance(value, bool):
            return f"{self.key}={str(value).lower()}"
        return f"{self.key}=[{','.join(map(str, value))}]" if isinstance(value, tuple) else f"{self.key}={value}"


def suggest(data: Annotations) -> list[Suggestion]:
    """Return settings for training with this data."""
    sides = np.sort(data.sizes, axis=1)
    short, aspect = float(np.median(sides[:, 0])), float(np.percentile(sides[:, 1] / sides[:, 0], 99))
    tenth = float(np.percentile(box_sides(data), 10)) if data.usable.any() else math.inf
    scale = min(max(_SMALL_OBJECT / tenth, 1), _LARGEST_SCALE)
    side = min(max(round(short * scale / _STRIDE), 1) * _STRIDE, _PUBLISHED.eval_short_side)
    longest = min(_up(side * aspect), _PUBLISHED.eval_max_size)
    shorter = tuple(range(_up(_SMALLEST_SIDE * side), side + 1, _STRIDE))

    why = f"images have a shorter side of {short:g} pixels (median)"
    if tenth < math.inf:
        why += f", and a tenth of the objects then has a side under {tenth * side / short:.0f} pixels"

    def scaled(published: int) -> int:
        return round(published * side / _PUBLISHED.eval_short_side)

    found = [
        Suggestion("data.eval_short_side", side, why),
        Suggestion("data.eval_max_size", longest, f"99% of the images are at most {aspect:.3g} times as long as wide"),
        Suggestion("data.short_sides", shorter, "0.6 to 1 times the size of evaluation, as published"),
        Suggestion("data.max_size", longest, "as in evaluation"),
        Suggestion(
            "data.crop_short_sides",
            tuple(map(scaled, _PUBLISHED.crop_short_sides)),
            "crops in the published proportion to the size of evaluation",
        ),
        Suggestion("data.crop_min", scaled(_PUBLISHED.crop_min), "the same"),
        Suggestion("data.crop_max", scaled(_PUBLISHED.crop_max), "the same"),
        _grouping(data, aspect),
    ]
    if most := int(data.object_counts.max()):
        queries = max(math.ceil(_QUERIES_PER_OBJECT * most / 10) * 10, _FEWEST_QUERIES)
        reason = f"three times the {most} objects in the fullest image, at least {_FEWEST_QUERIES}"
        found.append(Suggestion("model.queries", queries, f"{reason}; leave it out to keep those of model.init_from"))
    return found


def _up(length: float) -> int:
    return math.ceil(round(length / _STRIDE, 3)) * _STRIDE


def _grouping(data: Annotations, aspect: float) -> Suggestion:
    portrait = float((data.sizes[:, 0] > data.sizes[:, 1]).mean())
    mixed = min(portrait, 1 - portrait) >= _MIXED and aspect > _SQUARE
    reason = f"{portrait:.0%} of the images are higher than wide" + (", so this saves padding" if mixed else "")
    return Suggestion("data.group_by_aspect_ratio", mixed, reason)
