"""Parameter names of every format, in one table.

A row names a module in each layout; its parameters (``.weight``, ``.bias``) follow. ``N`` stands for a layer's number,
``{q,k,v}`` for three modules that hold the thirds of a packed projection, and a name that ends in ``_`` for a bare
parameter (``in_proj_weight``). No format transposes, reorders or scales; only the class head's rows mean different categories.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal, NamedTuple, get_args

Decoder = Literal["conditional", "detr"]
# hub: files of the Hugging Face hub; memory: what transformers 5 calls the same inside, and writes at times.
# Their backbone has timm's names, which are torchvision's, or those of transformers' own ResNet ("native").
Layout = Literal["official", "mmdetection", "hub", "hub-native", "memory", "memory-native"]

_COLUMNS = {"ours": 0, "official": 1, "mmdetection": 2, "hub": 3, "memory": 4}
_COMMON = [
    ("input_proj", "input_proj", "neck.convs.0.conv", "model.input_projection", "model.input_projection"),
    (
        "decoder.query_position",
        "query_embed",
        "query_embedding",
        "model.query_position_embeddings",
        "model.query_position_embeddings",
    ),
    ("class_head", "class_embed", "bbox_head.fc_cls", "class_labels_classifier", "class_labels_classifier"),
    *(
        (f"box_head.layers.{i}", f"bbox_embed.layers.{i}", mmdetection, f"bbox_predictor.layers.{i}", f"bbox_predictor.layers.{i}")
        for i, mmdetection in enumerate(("bbox_head.reg_ffn.layers.0.0", "bbox_head.reg_ffn.layers.1", "bbox_head.fc_reg"))
    ),
    ("decoder.norm", "transformer.decoder.norm", "decoder.post_norm", "model.decoder.layernorm", "model.decoder.layernorm"),
]  # fmt: skip
_ENCODER_LAYER = [
    ("self_attention.in_proj", "self_attn.in_proj_", "self_attn.attn.in_proj_", "self_attn.{q,k,v}_proj", "self_attn.{q,k,v}_proj"),
    ("self_attention.out_proj", "self_attn.out_proj", "self_attn.attn.out_proj", "self_attn.out_proj", "self_attn.o_proj"),
    ("feed_forward.linear1", "linear1", "ffn.layers.0.0", "fc1", "mlp.fc1"),
    ("feed_forward.linear2", "linear2", "ffn.layers.1", "fc2", "mlp.fc2"),
    ("norm1", "norm1", "norms.0", "self_attn_layer_norm", "self_attn_layer_norm"),
    ("norm2", "norm2", "norms.1", "final_layer_norm", "final_layer_norm"),
]  # fmt: skip
_DECODER_LAYER = [
    ("feed_forward.linear1", "linear1", "ffn.layers.0.0", "fc1", "mlp.fc1"),
    ("feed_forward.linear2", "linear2", "ffn.layers.1", "fc2", "mlp.fc2"),
    ("norm1", "norm1", "norms.0", "self_attn_layer_norm", "self_attn_layer_norm"),
    ("norm2", "norm2", "norms.1", "encoder_attn_layer_norm", "encoder_attn_layer_norm"),
    ("norm3", "norm3", "norms.2", "final_layer_norm", "final_layer_norm"),
]
_CONDITIONAL_LAYER = [
    ("self_attention.query_content", "sa_qcontent_proj", "self_attn.qcontent_proj", "sa_qcontent_proj", "self_attn.q_content_proj"),
    ("self_attention.query_position", "sa_qpos_proj", "self_attn.qpos_proj", "sa_qpos_proj", "self_attn.q_pos_proj"),
    ("self_attention.key_content", "sa_kcontent_proj", "self_attn.kcontent_proj", "sa_kcontent_proj", "self_attn.k_content_proj"),
    ("self_attention.key_position", "sa_kpos_proj", "self_attn.kpos_proj", "sa_kpos_proj", "self_attn.k_pos_proj"),
    ("self_attention.value", "sa_v_proj", "self_attn.v_proj", "sa_v_proj", "self_attn.v_proj"),
    ("self_attention.out_proj", "self_attn.out_proj", "self_attn.out_proj", "self_attn.out_proj", "self_attn.o_proj"),
    ("cross_attention.query_content", "ca_qcontent_proj", "cross_attn.qcontent_proj", "ca_qcontent_proj", "encoder_attn.q_content_proj"),
    ("cross_attention.query_position", "ca_qpos_proj", "cross_attn.qpos_proj", "ca_qpos_proj", "encoder_attn.q_pos_proj"),
    ("cross_attention.query_spatial", "ca_qpos_sine_proj", "cross_attn.qpos_sine_proj", "ca_qpos_sine_proj", "encoder_attn.q_pos_sine_proj"),
    ("cross_attention.key_content", "ca_kcontent_proj", "cross_attn.kcontent_proj", "ca_kcontent_proj", "encoder_attn.k_content_proj"),
    ("cross_attention.key_position", "ca_kpos_proj", "cross_attn.kpos_proj", "ca_kpos_proj", "encoder_attn.k_pos_proj"),
    ("cross_attention.value", "ca_v_proj", "cross_attn.v_proj", "ca_v_proj", "encoder_attn.v_proj"),
    ("cross_attention.out_proj", "cross_attn.out_proj", "cross_attn.out_proj", "encoder_attn.out_proj", "encoder_attn.o_proj"),
]  # fmt: skip
_DETR_LAYER = [
    ("self_attention.in_proj", "self_attn.in_proj_", "self_attn.attn.in_proj_", "self_attn.{q,k,v}_proj", "self_attn.{q,k,v}_proj"),
    ("self_attention.out_proj", "self_attn.out_proj", "self_attn.attn.out_proj", "self_attn.out_proj", "self_attn.o_proj"),
    ("cross_attention.in_proj", "multihead_attn.in_proj_", "cross_attn.attn.in_proj_", "encoder_attn.{q,k,v}_proj", "encoder_attn.{q,k,v}_proj"),
    ("cross_attention.out_proj", "multihead_attn.out_proj", "cross_attn.attn.out_proj", "encoder_attn.out_proj", "encoder_attn.o_proj"),
]  # fmt: skip
_LAYERS = {"ours": "", "official": "transformer.", "mmdetection": "", "hub": "model.", "memory": "model."}
_BACKBONE = {
    "ours": "backbone.",
    "official": "backbone.0.body.",
    "mmdetection": "backbone.",
    "hub": "model.backbone.conv_encoder.model.",
    "memory": "model.backbone.model.",
}


class Part(NamedTuple):
    """What a parameter of a file is to us: of ``parts`` equal parts of ours, number ``part``; usually the whole."""

    ours: str
    part: int
    parts: int


def names_in(layout: Layout, decoder: Decoder, name: str) -> list[str]:
    """Our parameter name -> its names in a layout: one, or three when it is split there.

    Raises ``KeyError`` for a name that is not ours.
    """
    column, native = _column(layout)
    if name.startswith("backbone."):
        inner = name.removeprefix("backbone.")
        return [_BACKBONE[column] + (_native(inner) if native else inner)]
    pattern, numbers = _pattern(name)
    return [_numbered(each, numbers) for each in _tables(column, decoder)[0][pattern]]


def ours_of(layout: Layout, decoder: Decoder, name: str) -> Part | None:
    """A parameter name of a layout -> ours; None for a name that is not part of it."""
    column, native = _column(layout)
    prefix = _BACKBONE[column]
    if name.startswith(prefix):
        inner = name.removeprefix(prefix)
        torchvision = _from_native(inner) if native else _TORCHVISION.fullmatch(inner) and inner
        return Part("backbone." + torchvision, 0, 1) if torchvision else None
    pattern, numbers = _pattern(name)
    found = _tables(column, decoder)[1].get(pattern)
    return None if found is None else found._replace(ours=_numbered(found.ours, numbers))


def recognise(names: Iterable[str]) -> tuple[Layout, Decoder]:
    """The layout and decoder that know most of these names."""
    names = list(names)
    kinds = [(layout, decoder) for layout in get_args(Layout) for decoder in get_args(Decoder)]
    return max(kinds, key=lambda kind: sum(ours_of(*kind, name) is not None for name in names))


def _column(layout: Layout) -> tuple[str, bool]:
    column, _, native = layout.partition("-")
    return column, native == "native"


@cache
def _tables(column: str, decoder: str) -> tuple[dict[str, list[str]], dict[str, Part]]:
    """Patterns of parameters: ours -> those of a column, and back."""
    layers = _DECODER_LAYER + (_CONDITIONAL_LAYER if decoder == "conditional" else _DETR_LAYER)
    rows: list[tuple[str, str]] = []
    for group, prefix in ((_COMMON, ""), (_ENCODER_LAYER, "encoder.layers.N."), (layers, "decoder.layers.N.")):
        start = _LAYERS[column] + prefix if prefix else ""
        rows += [(prefix + row[0], start + row[_COLUMNS[column]]) for row in group]
    if decoder == "conditional":
        for ours, theirs in (("query_scale", "query_scale"), ("reference_head", "ref_point_head")):
            rows.append((f"decoder.{ours}.layers.N", f"{_LAYERS[column]}decoder.{theirs}.layers.N"))
    there: dict[str, list[str]] = {}
    for module, target in rows:
        for parameter in ("weight", "bias"):
            full = target + parameter if target.endswith("_") else f"{target}.{parameter}"
            letters = "qkv" if "{q,k,v}" in full else " "
            there[f"{module}.{parameter}"] = [full.replace("{q,k,v}", letter) for letter in letters]
    back = {each: Part(ours, i, len(targets)) for ours, targets in there.items() for i, each in enumerate(targets)}
    return there, back


# Layers of the transformer and of query_scale and ref_point_head are numbered; a head's have rows of their own.
_NUMBER = re.compile(r"(?<=(?:encoder|decoder)\.layers\.)\d+|(?<=(?:_scale|t_head|e_head)\.layers\.)\d+")


def _pattern(name: str) -> tuple[str, list[str]]:
    return _NUMBER.sub("N", name), _NUMBER.findall(name)


def _numbered(pattern: str, numbers: list[str]) -> str:
    for number in numbers:
        pattern = pattern.replace("layers.N", f"layers.{number}", 1)
    return pattern


_TORCHVISION = re.compile(r"(?:layer\d+\.\d+\.)?(?:conv|bn)\d\.\w+|layer\d+\.\d+\.downsample\.[01]\.\w+")
_KIND = {"conv": "convolution", "bn": "normalization"}


def _native(name: str) -> str:
    """Torchvision's name of a ResNet's parameter -> that of transformers' own ResNet."""
    if match := re.fullmatch(r"layer(\d+)\.(\d+)\.(conv|bn)(\d)\.(\w+)", name):
        stage, block, kind, number, parameter = match.groups()
        module = f"layer.{int(number) - 1}.{_KIND[kind]}"
    elif match := re.fullmatch(r"layer(\d+)\.(\d+)\.downsample\.(0|1)\.(\w+)", name):
        stage, block, number, parameter = match.groups()
        module = f"shortcut.{_KIND['conv' if number == '0' else 'bn']}"
    elif match := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"embedder.embedder.{_KIND[match[1]]}.{match[2]}"
    else:
        raise KeyError(name)
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{module}.{parameter}"


def _from_native(name: str) -> str | None:
    if match := re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", name):
        return f"{'conv1' if match[1] == 'convolution' else 'bn1'}.{match[2]}"
    match = re.fullmatch(
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut|layer\.(\d))\.(convolution|normalization)\.(\w+)", name
    )
    if match is None:
        return None
    stage, block, where, number, kind, parameter = match.groups()
    if where == "shortcut":
        module = f"downsample.{'0' if kind == 'convolution' else '1'}"
    else:
        module = f"{'conv' if kind == 'convolution' else 'bn'}{int(number) + 1}"
    return f"layer{int(stage) + 1}.{block}.{module}.{parameter}"
