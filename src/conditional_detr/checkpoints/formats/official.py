"""``.pth`` files of the official codes: Atten4Vis/ConditionalDETR and facebookresearch/detr."""

import argparse
import reprlib
from pathlib import Path

from conditional_detr.checkpoints.checkpoint import HEAD, OWN_KEY, Checkpoint, Given, Parsed, Written, network_state
from conditional_detr.checkpoints.coco_categories import COCO_91, unnamed
from conditional_detr.checkpoints.formats.common import (
    about_input_size,
    check_file,
    check_published_network,
    plain_settings,
    write_pth,
)
from conditional_detr.checkpoints.names import Layout
from conditional_detr.checkpoints.state import write_state
from conditional_detr.errors import CheckpointError
from conditional_detr.input_size import InputSize
from conditional_detr.record import read_record

MARKER = None
_LAYOUT = Layout(
    name="official",
    prefix="transformer.",
    modules={
        "input_proj": "input_proj",
        "decoder.query_position": "query_embed",
        "class_head": "class_embed",
        "box_head.layers.0": "bbox_embed.layers.0",
        "box_head.layers.1": "bbox_embed.layers.1",
        "box_head.layers.2": "bbox_embed.layers.2",
        "decoder.norm": "transformer.decoder.norm",
    },
    encoder_layer={
        "self_attention.in_proj": "self_attn.in_proj_",
        "self_attention.out_proj": "self_attn.out_proj",
        "feed_forward.linear1": "linear1",
        "feed_forward.linear2": "linear2",
        "norm1": "norm1",
        "norm2": "norm2",
    },
    decoder_layer={
        "feed_forward.linear1": "linear1",
        "feed_forward.linear2": "linear2",
        "norm1": "norm1",
        "norm2": "norm2",
        "norm3": "norm3",
    },
    conditional={
        "self_attention.query_content": "sa_qcontent_proj",
        "self_attention.query_position": "sa_qpos_proj",
        "self_attention.key_content": "sa_kcontent_proj",
        "self_attention.key_position": "sa_kpos_proj",
        "self_attention.value": "sa_v_proj",
        "self_attention.out_proj": "self_attn.out_proj",
        "cross_attention.query_content": "ca_qcontent_proj",
        "cross_attention.query_position": "ca_qpos_proj",
        "cross_attention.query_spatial": "ca_qpos_sine_proj",
        "cross_attention.key_content": "ca_kcontent_proj",
        "cross_attention.key_position": "ca_kpos_proj",
        "cross_attention.value": "ca_v_proj",
        "cross_attention.out_proj": "cross_attn.out_proj",
    },
    detr={
        "self_attention.in_proj": "self_attn.in_proj_",
        "self_attention.out_proj": "self_attn.out_proj",
        "cross_attention.in_proj": "multihead_attn.in_proj_",
        "cross_attention.out_proj": "multihead_attn.out_proj",
    },
    backbone="backbone.0.body.",
    naming="torchvision",
)
LAYOUTS = (_LAYOUT,)

# Option of the official main.py -> field of ``Architecture``.
_OPTIONS = {
    "backbone": "backbone",
    "dilation": "dilation",
    "hidden_dim": "channels",
    "nheads": "heads",
    "dim_feedforward": "feed_forward",
    "enc_layers": "encoder_layers",
    "dec_layers": "decoder_layers",
    "num_queries": "queries",
    "dropout": "dropout",
}
_PLAIN = {"position_embedding": "sine", "pre_norm": False, "masks": False, "activation": "relu"}
_LARGEST_ID = 10_000  # the class head has a row for every id up to the largest
_SILENT = -100.0  # bias of a row without a category


def read(given: Given) -> Parsed:
    source, state, _ = given
    assert state is not None
    options = plain_settings(state.rest.get("args"))
    declared = {ours: options[option] for option, ours in _OPTIONS.items() if option in options}
    for option, plain in _PLAIN.items():
        if options.get(option, plain) != plain:
            raise CheckpointError(
                f"{source} was trained with {option}={reprlib.repr(options[option])}, which is not supported; "
                f"give a detector trained with {option}={plain!r}"
            )
    record = read_record(state.rest.get(OWN_KEY), source)
    classes = state.classes()
    categories = record.categories
    if categories is None or not classes:
        categories = COCO_91 if classes == len(COCO_91) else unnamed(classes)
    elif not set(categories.ids) <= set(range(classes)):
        raise CheckpointError(
            f"{source}: its record names category ids {reprlib.repr(list(categories.ids))}, its class head has rows for 0 to "
            f"{classes - 1}; convert the original again"
        )
    else:
        keep = [*categories.ids, classes] if state.decoder == "detr" else list(categories.ids)
        state = state._replace(values=state.values | {name: state.values[name][keep] for name in HEAD})
    left_out = {key: "training state" for key in state.rest if key not in ("args", OWN_KEY)} | state.left_out
    return Parsed(
        state, declared, categories, record.input_size or InputSize(), left_out, record.thresholds_of(categories)
    )


def write(checkpoint: Checkpoint, out: Path, timm_backbone: bool | None = None) -> Written:
    """Write a file that the official code loads.

    The class head gets a row for every category id, as in the official code. Raises ``CheckpointError`` for a network that
    the official code does not support.
    """
    check_file(out, "official", timm_backbone)
    check_published_network(checkpoint, "the official code")
    architecture, ids = checkpoint.architecture, checkpoint.categories.ids
    state = network_state(checkpoint.model)
    if max(ids) > _LARGEST_ID or min(ids) < 0:
        raise CheckpointError(
            f"category ids from {min(ids)} to {max(ids)} need a class head of as many rows in the official format; "
            f"convert to huggingface instead"
        )
    remarks = about_input_size(checkpoint, "the official code")
    if list(ids) != list(range(len(ids))):
        added = max(ids) + 1 - len(ids)
        remarks.append(
            f"the class head got a row for every category id up to {max(ids)}: {added} rows without a category "
            f"were added, with a bias of {_SILENT:g}"
        )
        rows = max(ids) + 1
        used = [*ids, rows] if architecture.softmax else list(ids)
        for name, silent in zip(HEAD, (0.0, _SILENT), strict=True):
            value = state[name]
            spread = value.new_full((architecture.logits(rows), *value.shape[1:]), silent)
            spread[used] = value
            state[name] = spread
    classes = architecture.classes(len(state["class_head.weight"]))
    if classes != len(COCO_91):
        remarks.append(
            f"the official code builds {len(COCO_91)} classes for COCO: set num_classes = {classes} in its build()"
        )
    values, names = write_state(state, _LAYOUT, architecture.decoder)
    args = argparse.Namespace(
        **{option: getattr(architecture, ours) for option, ours in _OPTIONS.items()},
        **_PLAIN,
        aux_loss=True,
        dataset_file="coco",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_pth(out, {"model": values, "args": args, OWN_KEY: checkpoint.record.to_dict()})
    return Written(names, remarks)
