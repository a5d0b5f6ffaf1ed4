"""Parameter names of the formats, in one table. ``N`` stands for a layer's number.

A row names a module; its parameters (``.weight``, ``.bias``) follow. Only the packed projection of the encoder's
self-attention has a shape of its own in a format (Hugging Face splits it).
"""

import re

# ours, official code, Hugging Face hub
_MODULES = [
    ("input_proj", "input_proj", "model.input_projection"),
    ("decoder.query_position", "query_embed", "model.query_position_embeddings"),
    ("class_head", "class_embed", "class_labels_classifier"),
    ("box_head.layers.N", "bbox_embed.layers.N", "bbox_predictor.layers.N"),
    ("decoder.norm", "transformer.decoder.norm", "model.decoder.layernorm"),
    ("decoder.query_scale.layers.N", "transformer.decoder.query_scale.layers.N", "model.decoder.query_scale.layers.N"),
    (
        "decoder.reference_head.layers.N",
        "transformer.decoder.ref_point_head.layers.N",
        "model.decoder.ref_point_head.layers.N",
    ),
]
_ENCODER_LAYER = [
    ("self_attention.in_proj", "self_attn.in_proj", "self_attn.in_proj"),
    ("self_attention.out_proj", "self_attn.out_proj", "self_attn.out_proj"),
    ("feed_forward.linear1", "linear1", "fc1"),
    ("feed_forward.linear2", "linear2", "fc2"),
    ("norm1", "norm1", "self_attn_layer_norm"),
    ("norm2", "norm2", "final_layer_norm"),
]
_DECODER_LAYER = [
    ("self_attention.query_content", "sa_qcontent_proj", "sa_qcontent_proj"),
    ("self_attention.query_position", "sa_qpos_proj", "sa_qpos_proj"),
    ("self_attention.key_content", "sa_kcontent_proj", "sa_kcontent_proj"),
    ("self_attention.key_position", "sa_kpos_proj", "sa_kpos_proj"),
    ("self_attention.value", "sa_v_proj", "sa_v_proj"),
    ("self_attention.out_proj", "self_attn.out_proj", "self_attn.out_proj"),
    ("cross_attention.query_content", "ca_qcontent_proj", "ca_qcontent_proj"),
    ("cross_attention.query_position", "ca_qpos_proj", "ca_qpos_proj"),
    ("cross_attention.query_spatial", "ca_qpos_sine_proj", "ca_qpos_sine_proj"),
    ("cross_attention.key_content", "ca_kcontent_proj", "ca_kcontent_proj"),
    ("cross_attention.key_position", "ca_kpos_proj", "ca_kpos_proj"),
    ("cross_attention.value", "ca_v_proj", "ca_v_proj"),
    ("cross_attention.out_proj", "cross_attn.out_proj", "encoder_attn.out_proj"),
    ("feed_forward.linear1", "linear1", "fc1"),
    ("feed_forward.linear2", "linear2", "fc2"),
    ("norm1", "norm1", "self_attn_layer_norm"),
    ("norm2", "norm2", "encoder_attn_layer_norm"),
    ("norm3", "norm3", "final_layer_norm"),
]
TABLE = (
    _MODULES
    + [
        (f"encoder.layers.N.{a}", f"transformer.encoder.layers.N.{b}", f"model.encoder.layers.N.{c}")
        for a, b, c in _ENCODER_LAYER
    ]
    + [
        (f"decoder.layers.N.{a}", f"transformer.decoder.layers.N.{b}", f"model.decoder.layers.N.{c}")
        for a, b, c in _DECODER_LAYER
    ]
)
_OFFICIAL = {ours: official for ours, official, _ in TABLE}
_HUB = {ours: hub for ours, _, hub in TABLE}


def official_name(name: str) -> str:
    """Our parameter name -> that of the official code. Raises ``KeyError`` for a name that is not ours."""
    if name.startswith("backbone."):
        return "backbone.0.body." + name.removeprefix("backbone.")
    # The packed projection is a bare parameter there, not a module.
    return _rename(name, _OFFICIAL).replace("in_proj.", "in_proj_")


def hub_name(name: str) -> str:
    """Our parameter name -> that of the Hugging Face hub, for everything but the backbone."""
    return _rename(name, _HUB)


def timm_backbone_name(name: str) -> str:
    """Our backbone parameter -> that of hub files whose backbone is timm's (torchvision's names)."""
    return "model.backbone.conv_encoder.model." + name.removeprefix("backbone.")


def native_backbone_name(name: str) -> str:
    """Our backbone parameter -> that of hub files whose backbone is transformers' own ResNet."""
    name = name.removeprefix("backbone.")
    if match := re.fullmatch(r"layer(\d+)\.(\d+)\.(conv|bn)(\d)\.(\w+)", name):
        stage, block, kind, number, parameter = match.groups()
        module = "convolution" if kind == "conv" else "normalization"
        inner = f"encoder.stages.{int(stage) - 1}.layers.{block}.layer.{int(number) - 1}.{module}.{parameter}"
    elif match := re.fullmatch(r"layer(\d+)\.(\d+)\.downsample\.(\d)\.(\w+)", name):
        stage, block, number, parameter = match.groups()
        module = "convolution" if number == "0" else "normalization"
        inner = f"encoder.stages.{int(stage) - 1}.layers.{block}.shortcut.{module}.{parameter}"
    elif match := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        kind, parameter = match.groups()
        inner = f"embedder.embedder.{'convolution' if kind == 'conv' else 'normalization'}.{parameter}"
    else:
        raise KeyError(name)
    return "model.backbone.conv_encoder.model." + inner


def _rename(name: str, table: dict[str, str]) -> str:
    module, _, parameter = name.rpartition(".")
    numbers = re.findall(r"(?<=layers\.)\d+", module)
    target = table[re.sub(r"(?<=layers\.)\d+", "N", module)]
    for number in numbers:
        target = target.replace("layers.N", f"layers.{number}", 1)
    return f"{target}.{parameter}"
