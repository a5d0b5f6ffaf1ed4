"""Parameter names: ours, and those of a format's layout.

A layout maps our modules to those of another program. The parameters of a module (``.weight``, ``.bias``) keep their names.
``N`` stands for a layer's number, and ``{q,k,v}`` for three modules that hold one third each of a packed projection. A name
that ends in ``_`` stands for a bare parameter (``in_proj_weight``). No format transposes, reorders or scales values.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, get_args

from conditional_detr.model.backbones import Naming, families

Decoder = Literal["conditional", "detr"]


class Part(NamedTuple):
    """Our equivalent of a file's parameter: number ``part`` of ``parts`` equal parts of ``ours``; ``parts`` is usually 1."""

    ours: str
    part: int
    parts: int


@dataclass(frozen=True, eq=False)
class Layout:
    """Parameter names of a format, module by module: ours -> theirs.

    modules: modules outside the layers. encoder_layer, decoder_layer: modules of a layer, for both kinds of decoder.
    conditional, detr: further modules of a decoder layer. prefix: prefix of all layers, query_scale and ref_point_head.
    backbone: prefix of the backbone. naming: naming scheme of the parameters below it.
    """

    name: str
    prefix: str
    modules: Mapping[str, str]
    encoder_layer: Mapping[str, str]
    decoder_layer: Mapping[str, str]
    conditional: Mapping[str, str]
    detr: Mapping[str, str]
    backbone: str
    naming: Naming

    def names(self, decoder: Decoder, name: str) -> list[str]:
        """Return the names of our parameter in this layout: one, or three for a split projection.

        Raises ``KeyError`` for a name that is not ours.
        """
        if name.startswith("backbone."):
            inner = name.removeprefix("backbone.")
            for family in families():
                if family.ours(inner, "torchvision") is not None:
                    return [self.backbone + family.named(inner, self.naming)]
            raise KeyError(name)
        pattern, numbers = _pattern(name)
        return [_numbered(each, numbers) for each in _tables(self, decoder)[0][pattern]]

    def ours(self, decoder: Decoder, name: str) -> Part | None:
        """Return our equivalent of a parameter of this layout; None for a name that is not part of it."""
        if name.startswith(self.backbone):
            inner = name.removeprefix(self.backbone)
            found = (family.ours(inner, self.naming) for family in families())
            ours = next((each for each in found if each is not None), None)
            return None if ours is None else Part("backbone." + ours, 0, 1)
        pattern, numbers = _pattern(name)
        part = _tables(self, decoder)[1].get(pattern)
        return None if part is None else part._replace(ours=_numbered(part.ours, numbers))


def recognize(names: Iterable[str], layouts: Iterable[Layout]) -> tuple[Layout, Decoder]:
    """Return the layout and decoder that contain most of these names."""
    names = list(names)
    kinds = [(layout, decoder) for layout in layouts for decoder in get_args(Decoder)]
    return max(kinds, key=lambda kind: sum(kind[0].ours(kind[1], name) is not None for name in names))


@cache
def _tables(layout: Layout, decoder: Decoder) -> tuple[dict[str, list[str]], dict[str, Part]]:
    """Build tables of name patterns: ours -> those of a layout, and back."""
    decoder_layer = {**layout.decoder_layer, **(layout.conditional if decoder == "conditional" else layout.detr)}
    rows = dict(layout.modules)
    for group, start in ((layout.encoder_layer, "encoder.layers.N."), (decoder_layer, "decoder.layers.N.")):
        rows |= {start + ours: layout.prefix + start + theirs for ours, theirs in group.items()}
    if decoder == "conditional":
        for ours, theirs in (("query_scale", "query_scale"), ("reference_head", "ref_point_head")):
            rows[f"decoder.{ours}.layers.N"] = f"{layout.prefix}decoder.{theirs}.layers.N"
    there: dict[str, list[str]] = {}
    for module, target in rows.items():
        for parameter in ("weight", "bias"):
            full = target + parameter if target.endswith("_") else f"{target}.{parameter}"
            letters = "qkv" if "{q,k,v}" in full else " "
            there[f"{module}.{parameter}"] = [full.replace("{q,k,v}", letter) for letter in letters]
    back = {each: Part(ours, i, len(targets)) for ours, targets in there.items() for i, each in enumerate(targets)}
    return there, back


# Numbers of transformer layers and of layers in query_scale and ref_point_head; layers of heads have rows of their own.
_NUMBER = re.compile(r"(?<=(?:encoder|decoder)\.layers\.)\d+|(?<=(?:_scale|t_head|e_head)\.layers\.)\d+")


def _pattern(name: str) -> tuple[str, list[str]]:
    return _NUMBER.sub("N", name), _NUMBER.findall(name)


def _numbered(pattern: str, numbers: list[str]) -> str:
    for number in numbers:
        pattern = pattern.replace("layers.N", f"layers.{number}", 1)
    return pattern
