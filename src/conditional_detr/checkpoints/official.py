"""``.pth`` files of the official codes: Atten4Vis/ConditionalDETR and facebookresearch/detr."""

import argparse
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from conditional_detr.checkpoints.architecture import build_from
from conditional_detr.checkpoints.checkpoint import HEAD, OWN_KEY, Checkpoint, Origin, Written, network_state
from conditional_detr.checkpoints.coco_categories import COCO_91, unnamed
from conditional_detr.checkpoints.own import (
    about_input_size,
    check_published_network,
    own_values,
    read_categories,
    read_input_size,
)
from conditional_detr.checkpoints.state import State, write_state
from conditional_detr.errors import InputError
from conditional_detr.files import whole_file

# Option of the official main.py -> field of our ModelSettings.
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
_SILENT = -100.0  # bias of a row that stands for no category


def from_official(state: State, rest: Mapping[str, Any], dilation: bool | None, source: Path) -> Checkpoint:
    """The checkpoint of a file's weights and of what else it holds. Raises ``InputError`` when it can't be one of ours."""
    args: Any = rest.get("args")
    options = cast(Mapping[str, Any], args if isinstance(args, Mapping) else vars(args) if args is not None else {})
    declared = {ours: options[option] for option, ours in _OPTIONS.items() if option in options}
    for option, plain in _PLAIN.items():
        if options.get(option, plain) != plain:
            raise InputError(
                f"{source} was trained with {option}={reprlib.repr(options[option])}, which is not supported; "
                f"give a detector trained with {option}={plain!r}"
            )
    own = cast(Mapping[str, Any], rest.get(OWN_KEY, {}))
    softmax = state.decoder == "detr"
    rows = len(state.values["class_head.weight"]) - softmax
    if own:
        categories = read_categories(own)
        keep = [*categories.ids, *[rows] * softmax]
        state = state._replace(values=state.values | {name: state.values[name][keep] for name in HEAD})
    else:
        categories = COCO_91 if rows == len(COCO_91) else unnamed(rows)
    model, settings = build_from(state, declared, dilation, source)
    left_out = dict(state.left_out) | {key: "training state" for key in rest if key not in ("args", OWN_KEY)}
    origin = Origin("official", state.layout, state.names, left_out)
    return Checkpoint(model, settings, categories, read_input_size(own, source), origin)


def save_official(checkpoint: Checkpoint, file: Path) -> Written:
    """Write a file that the official code loads.

    The class head gets a row for every category id, as the official code has it. Raises ``InputError`` for a network that
    the official code does not have.
    """
    check_published_network(checkpoint, "the official code")
    settings, ids = checkpoint.settings, checkpoint.categories.ids
    state = network_state(checkpoint.model)
    if max(ids) > _LARGEST_ID or min(ids) < 0:
        raise InputError(
            f"category ids from {min(ids)} to {max(ids)} need a class head of as many rows in the official format; "
            f"convert to huggingface instead"
        )
    remarks = about_input_size(checkpoint, "the official code")
    if list(ids) != list(range(len(ids))):
        added = max(ids) + 1 - len(ids)
        remarks.append(
            f"the class head got a row for every category id up to {max(ids)}: {added} rows that stand for no category "
            f"were added, with a bias of {_SILENT:g}"
        )
        softmax = checkpoint.model.softmax
        for name, silent in zip(HEAD, (0.0, _SILENT), strict=True):
            value = state[name]
            spread = value.new_full((max(ids) + 1 + softmax, *value.shape[1:]), silent)
            spread[[*ids, *[max(ids) + 1] * softmax]] = value
            state[name] = spread
    rows = len(state["class_head.weight"]) - checkpoint.model.softmax
    if rows != len(COCO_91):
        remarks.append(
            f"the official code builds {len(COCO_91)} classes for COCO: set num_classes = {rows} in its build()"
        )
    values, names = write_state(state, "official", settings.decoder)
    args = argparse.Namespace(
        **{option: getattr(settings, ours) for option, ours in _OPTIONS.items()},
        **_PLAIN,
        aux_loss=True,
        dataset_file="coco",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        torch.save({"model": values, "args": args, OWN_KEY: own_values(checkpoint)}, partial)
    return Written(names, remarks)
