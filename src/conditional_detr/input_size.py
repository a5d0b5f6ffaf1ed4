"""How images are resized and padded for a model. Imports no torch."""

from dataclasses import dataclass
from typing import Literal, get_args

# Maximum number of pixels of a resized or padded image, 5792 x 5792. It keeps a wrong size and an image of extreme proportions
# from taking all memory.
MAX_PIXELS = 2**25

SizeRule = Literal["published", "transformers", "fit", "stretch"]
BoxFrame = Literal["image", "padded", "padded-with-mask"]


@dataclass(frozen=True)
class InputSize:
    """How images are resized and padded for a model, and what its boxes are relative to.

    Raises ``ValueError`` for lengths below 1, and for sizes of more than ``MAX_PIXELS``.

    sides: two lengths in pixels, see rule. rule: "published" scales the shorter side to the first length and the longer one
    to at most the second; "transformers" does the same, but rounds differently when the limit applies; "fit" scales the image
    to the largest size within (height, width); "stretch" scales it to exactly (height, width).
    padded: minimum (height, width) that images are padded to; None pads to the largest of the batch.
    boxes: what predicted boxes are relative to. "image": the image without padding (published). "padded": the padded image,
    with no padding mask for the model. "padded-with-mask": the padded image, with a padding mask.
    """

    sides: tuple[int, int] = (800, 1333)
    rule: SizeRule = "published"
    padded: tuple[int, int] | None = None
    boxes: BoxFrame = "image"

    def __post_init__(self) -> None:
        if self.rule not in get_args(SizeRule):
            raise ValueError(f"rule must be one of {get_args(SizeRule)}, got {self.rule!r}")
        if self.boxes not in get_args(BoxFrame):
            raise ValueError(f"boxes must be one of {get_args(BoxFrame)}, got {self.boxes!r}")
        # Of a shorter side and a limit, either may be huge: that of a square image, which is the smallest, is the lesser one.
        square = (min(self.sides), min(self.sides))
        smallest = self.sides if self.rule in ("fit", "stretch") else square
        for height, width in (smallest, self.padded or smallest):
            if min(height, width) < 1 or height * width > MAX_PIXELS:
                raise ValueError(f"height x width must be from 1 to {MAX_PIXELS} pixels, got {height} x {width}")

    @property
    def mask(self) -> bool:
        """True if the model gets a padding mask."""
        return self.boxes != "padded"

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which an image of this size is scaled, in pixels."""
        if self.rule == "published":
            return resized_size(height, width, *self.sides)
        if self.rule == "transformers":
            return _resized_size_of_transformers(height, width, *self.sides)
        if self.rule == "stretch":
            return self.sides
        scale = min(self.sides[0] / height, self.sides[1] / width)
        return max(int(height * scale), 1), max(int(width * scale), 1)

    def frame(self, height: int, width: int, padded: tuple[int, int]) -> tuple[float, float]:
        """Return the (height, width) by which boxes in 0..1 are multiplied, in pixels of the original image.

        height, width: size of the original image. padded: (height, width) of the padded batch.
        """
        if self.boxes == "image":
            return float(height), float(width)
        resized = self.resized(height, width)
        return height * padded[0] / resized[0], width * padded[1] / resized[1]


def resized_size(height: int, width: int, short_side: int, max_size: int | None) -> tuple[int, int]:
    """Return (height, width) with the shorter side scaled to ``short_side`` and the longer one to at most ``max_size``.

    This is the published rule. When the limit applies, the *shorter* side is rounded first, so the longer one can exceed the
    limit, by a pixel in images of usual proportions. No side becomes 0: where the published rule gives 0, the sides are 1 and
    ``max_size``.
    """
    if max_size is not None and max(height, width) / min(height, width) * short_side > max_size:
        short_side = round(max_size * min(height, width) / max(height, width))
        if short_side == 0:
            return (max_size, 1) if width < height else (1, max_size)
    if min(height, width) == short_side:
        return height, width
    if width < height:
        return int(short_side * height / width), short_side
    return short_side, int(short_side * width / height)


def _resized_size_of_transformers(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """Compute ``resized_size``, but derive the longer side from the shorter one before rounding it."""
    shorter, longer = min(height, width), max(height, width)
    exact: float = short_side
    if longer / shorter * short_side > max_size:
        exact = max_size * shorter / longer
        short_side = round(exact)
        if short_side == 0:
            return (max_size, 1) if width < height else (1, max_size)
    if shorter == short_side:
        return height, width
    return (int(exact * height / width), short_side) if width < height else (short_side, int(exact * width / height))
