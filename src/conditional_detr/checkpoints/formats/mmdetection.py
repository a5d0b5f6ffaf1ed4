"""``.pth`` files of MMDetection 3.x, written by its training or its publishing tool."""

import ast
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from conditional_detr.architecture import Architecture
from conditional_detr.checkpoints.checkpoint import (
    COUNTER,
    HEAD,
    OWN_KEY,
    Checkpoint,
    Given,
    Parsed,
    State,
    Written,
    network_state,
)
from conditional_detr.checkpoints.coco_categories import COCO_80, UNUSED, unnamed
from conditional_detr.checkpoints.formats.common import (
    about_input_size,
    check_file,
    check_published_network,
    plain_settings,
    write_pth,
)
from conditional_detr.checkpoints.names import Layout
from conditional_detr.checkpoints.state import check_numbers, write_state
from conditional_detr.errors import CheckpointError
from conditional_detr.input_size import InputSize
from conditional_detr.record import Categories, read_record

MARKER = None
_LAYOUT = Layout(
    name="mmdetection",
    prefix="",
    modules={
        "input_proj": "neck.convs.0.conv",
        "decoder.query_position": "query_embedding",
        "class_head": "bbox_head.fc_cls",
        "box_head.layers.0": "bbox_head.reg_ffn.layers.0.0",
        "box_head.layers.1": "bbox_head.reg_ffn.layers.1",
        "box_head.layers.2": "bbox_head.fc_reg",
        "decoder.norm": "decoder.post_norm",
    },
    encoder_layer={
        "self_attention.in_proj": "self_attn.attn.in_proj_",
        "self_attention.out_proj": "self_attn.attn.out_proj",
        "feed_forward.linear1": "ffn.layers.0.0",
        "feed_forward.linear2": "ffn.layers.1",
        "norm1": "norms.0",
        "norm2": "norms.1",
    },
    decoder_layer={
        "feed_forward.linear1": "ffn.layers.0.0",
        "feed_forward.linear2": "ffn.layers.1",
        "norm1": "norms.0",
        "norm2": "norms.1",
        "norm3": "norms.2",
    },
    conditional={
        "self_attention.query_content": "self_attn.qcontent_proj",
        "self_attention.query_position": "self_attn.qpos_proj",
        "self_attention.key_content": "self_attn.kcontent_proj",
        "self_attention.key_position": "self_attn.kpos_proj",
        "self_attention.value": "self_attn.v_proj",
        "self_attention.out_proj": "self_attn.out_proj",
        "cross_attention.query_content": "cross_attn.qcontent_proj",
        "cross_attention.query_position": "cross_attn.qpos_proj",
        "cross_attention.query_spatial": "cross_attn.qpos_sine_proj",
        "cross_attention.key_content": "cross_attn.kcontent_proj",
        "cross_attention.key_position": "cross_attn.kpos_proj",
        "cross_attention.value": "cross_attn.v_proj",
        "cross_attention.out_proj": "cross_attn.out_proj",
    },
    detr={
        "self_attention.in_proj": "self_attn.attn.in_proj_",
        "self_attention.out_proj": "self_attn.attn.out_proj",
        "cross_attention.in_proj": "cross_attn.attn.in_proj_",
        "cross_attention.out_proj": "cross_attn.attn.out_proj",
    },
    backbone="backbone.",
    naming="torchvision",
)
LAYOUTS = (_LAYOUT,)

_TYPES = {"conditional": "ConditionalDETR", "detr": "DETR"}
# Values of the published network; other values are refused.
_PLAIN = {
    "positional_encoding.temperature": 10000,
    "positional_encoding.normalize": True,
    "positional_encoding.offset": 0,
    "data_preprocessor.mean": [123.675, 116.28, 103.53],
    "data_preprocessor.std": [58.395, 57.12, 57.375],
    "data_preprocessor.bgr_to_rgb": True,
}
_DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}


def read(given: Given) -> Parsed:
    source, state, _ = given
    assert state is not None
    meta = plain_settings(state.rest.get("meta"))
    text = meta.get("cfg")
    config = _assignments(text) if isinstance(text, str) else {}
    declared = _declared(config, source)
    record = read_record(state.rest.get(OWN_KEY), source)
    left_out = {key: "training state" for key in state.rest if key not in ("meta", OWN_KEY)} | state.left_out
    classes = state.classes()
    categories = record.categories
    size = record.input_size or _input_size(config, source)
    if categories is not None and classes:
        own = cast("Mapping[str, Any]", state.rest[OWN_KEY])
        state = _with_unused_rows(state, own, len(categories) - classes, source)
    else:
        names = _names(_at(meta, "dataset_meta.classes") or _at(meta, "dataset_meta.CLASSES") or meta.get("CLASSES"))
        if len(names) != classes and names:
            left_out["meta.dataset_meta"] = f"it names {len(names)} classes, the class head has {classes}"
        if classes == len(COCO_80) and names in ((), COCO_80.names):
            categories = COCO_80
        else:
            categories = Categories(tuple(range(classes)), names) if len(names) == classes else unnamed(classes)
    return Parsed(state, declared, categories, size, left_out, record.thresholds_of(categories))


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in cast("list[object]", value)) if isinstance(value, list) else ()


def _with_unused_rows(state: State, own: Mapping[str, Any], count: int, source: Path) -> State:
    """Restore the ``count`` rows of unused ids, which MMDetection does not store."""
    unused: Any = own.get("unused")
    rows = len(state.values[HEAD[0]]) + count
    good = isinstance(unused, list) and all(type(row) is int and 0 <= row < rows for row in unused)
    skipped = set(unused) if good else set[int]()
    if not good or not len(skipped) == len(unused) == count:
        raise CheckpointError(f"{source}: its class head does not match its model record; convert the original again")
    used = [i for i in range(rows) if i not in skipped]
    heads: dict[str, Tensor] = {}
    for name in HEAD:
        stored, value = own.get(name), state.values[name]
        if not isinstance(stored, Tensor) or stored.shape != (count, *value.shape[1:]):
            raise CheckpointError(
                f"{source}: its model record holds no {name} for its unused rows; convert the original again"
            )
        check_numbers(stored, f"{OWN_KEY}.{name}", source)
        heads[name] = value.new_empty(rows, *value.shape[1:])
        heads[name][used], heads[name][unused] = value, stored.float()
    return state._replace(values=state.values | heads)


def write(checkpoint: Checkpoint, out: Path, timm_backbone: bool | None = None) -> Written:
    """Write a file that MMDetection loads.

    Rows of the class head whose category is "N/A" are stored separately under our own key. Raises ``CheckpointError`` for a
    network that MMDetection does not support.
    """
    check_file(out, "mmdetection", timm_backbone)
    check_published_network(checkpoint, "MMDetection")
    architecture, categories = checkpoint.architecture, checkpoint.categories
    if architecture.dilation:
        raise CheckpointError(
            "MMDetection dilates the first block of the last stage too, which is a different network from DC5, so it can't "
            "open this model; convert to huggingface or official instead"
        )
    unused = [i for i, name in enumerate(categories.names) if name == UNUSED]
    state = network_state(checkpoint.model)
    own: dict[str, Any] = {**checkpoint.record.to_dict(), "unused": unused}
    for name in HEAD:
        own[name] = state[name][unused].cpu()
        state[name] = state[name][[i for i in range(len(state[name])) if i not in unused]]
    values, names = write_state(state, _LAYOUT, architecture.decoder)
    counters = [name.replace("running_var", COUNTER) for name in values if name.endswith("running_var")]
    values |= {name: torch.tensor(0) for name in counters}
    remarks = about_input_size(checkpoint, "MMDetection")
    remarks += [f"{len(counters)} {COUNTER} of batch norm were added as 0, which MMDetection expects but does not use"]
    if unused:
        remarks.append(
            f"{len(unused)} rows of the class head without a category ({UNUSED}) were stored separately under {OWN_KEY!r}, "
            f"from where conditional_detr restores them"
        )
    classes = tuple(name for name in categories.names if name != UNUSED)
    meta = {"cfg": _config_text(architecture, len(classes)), "dataset_meta": {"classes": classes}}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_pth(out, {"meta": meta, "state_dict": values, OWN_KEY: own})
    return Written(names, remarks)


def _declared(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Read the ``Architecture`` fields that the ``model`` of a configuration states. Raises ``CheckpointError``."""
    config = _mapping(config.get("model"))
    kind = config.get("type")
    if kind is not None and kind not in _TYPES.values():
        name = kind if isinstance(kind, str) and kind.isidentifier() else reprlib.repr(kind)
        raise CheckpointError(f"{source} is a {name} of MMDetection; give a ConditionalDETR or DETR")
    declared: dict[str, Any] = {}
    if isinstance(config.get("backbone"), dict):
        backbone = _mapping(config["backbone"])
        if backbone.get("style", "pytorch") != "pytorch":
            raise CheckpointError(
                f"{source} has a backbone of style {reprlib.repr(backbone['style'])}, which is not supported"
            )
        dilations = backbone.get("dilations", [1])
        if not isinstance(dilations, list) or any(each != 1 for each in cast("list[object]", dilations)):
            raise CheckpointError(
                f"{source} has a backbone with dilations={reprlib.repr(dilations)}: MMDetection dilates the first block of a "
                f"stage too, which is a different network from the published DC5 and is not supported"
            )
        declared["dilation"] = False
    for path, plain in _PLAIN.items():
        value = _at(config, path)
        if value is not None and value != plain:
            raise CheckpointError(f"{source} was trained with {path}={reprlib.repr(value)}; only {plain} is supported")
    attention = "layer_cfg.self_attn_cfg."
    paths = {
        "heads": f"encoder.{attention}num_heads",
        "dropout": f"encoder.{attention}dropout",
        "queries": "num_queries",
    }
    found = {key: _at(config, path) for key, path in paths.items()}
    decoder_heads = _at(config, f"decoder.{attention}num_heads")
    if decoder_heads is not None and decoder_heads != found["heads"]:
        raise CheckpointError(
            f"{source}: encoder and decoder have different numbers of attention heads, which is not supported"
        )
    return declared | {key: value for key, value in found.items() if value is not None}


def _at(config: Any, path: str) -> Any:
    """Return the value at a dotted path in nested dictionaries; None if it is missing."""
    for key in path.split("."):
        config = _mapping(config).get(key)
    return config


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _input_size(config: Mapping[str, Any], source: Path) -> InputSize:
    """Return the input size of the Resize step in the test pipeline; the published size without such a step.

    Raises ``CheckpointError`` for a size that is not two numbers of pixels.
    """
    pipeline = config.get("test_pipeline") or _at(config, "val_dataloader.dataset.pipeline") or ()
    for step in pipeline if isinstance(pipeline, list) else ():
        scale: object = _at(step, "scale")
        if _at(step, "type") == "Resize" and isinstance(scale, list):
            sides = cast("list[Any]", scale)
            if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
                raise CheckpointError(
                    f"{source} was trained with a Resize to scale={reprlib.repr(sides)}; only (width, height) in pixels is supported"
                )
            width, height = sides
            if _at(step, "keep_ratio"):
                return InputSize((min(width, height), max(width, height)))
            return InputSize((height, width), rule="stretch")
    return InputSize()


def _assignments(text: str) -> dict[str, Any]:
    """Return the assignments in a configuration. Its Python text is parsed, not run. Empty if it can't be parsed."""
    try:
        statements = ast.parse(text).body
        return {
            statement.targets[0].id: _literal(statement.value)
            for statement in statements
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return {}


def _literal(node: ast.expr) -> Any:
    """Evaluate constants, containers and ``dict(...)``; return None for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {each.arg: _literal(each.value) for each in node.keywords}
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(each) for each in node.elts]
    return node.value if isinstance(node, ast.Constant) else None


def _config_text(settings: Architecture, classes: int) -> str:
    """Return a configuration with the settings that reading needs and that users of MMDetection have to set."""
    assert isinstance(settings.backbone, str)
    self_attention = f"dict(embed_dims={settings.channels}, num_heads={settings.heads}, dropout={settings.dropout})"
    return (
        f"model = dict(type={_TYPES[settings.decoder]!r}, num_queries={settings.queries}, "
        f"backbone=dict(type='ResNet', depth={_DEPTHS[settings.backbone]}, style='pytorch'), "
        f"encoder=dict(num_layers={settings.encoder_layers}, layer_cfg=dict(self_attn_cfg={self_attention})), "
        f"decoder=dict(num_layers={settings.decoder_layers}), bbox_head=dict(num_classes={classes}))\n"
    )
