"""``.pth`` files of MMDetection 3.x, as its training and its publishing tool write them."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from conditional_detr.checkpoints.architecture import build_from
from conditional_detr.checkpoints.checkpoint import COUNTER, OWN_KEY, Checkpoint, Origin, Written
from conditional_detr.checkpoints.coco_categories import COCO_80, UNUSED
from conditional_detr.checkpoints.own import check_published_network, own_values, read_input_size
from conditional_detr.checkpoints.state import State, write_state
from conditional_detr.config import ModelSettings
from conditional_detr.errors import InputError
from conditional_detr.files import whole_file
from conditional_detr.structures import Categories

_HEAD = ("class_head.weight", "class_head.bias")
_TYPES = {"conditional": "ConditionalDETR", "detr": "DETR"}
_DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}


def from_mmdetection(state: State, rest: Mapping[str, Any], dilation: bool | None, source: Path) -> Checkpoint:
    """The checkpoint of a file's weights and of what else it holds. Raises ``InputError`` when it can't be one of ours."""
    meta = cast(Mapping[str, Any], rest.get("meta") or {})
    declared = _declared(_model_config(str(meta.get("cfg", ""))), source)
    own = cast(Mapping[str, Any], rest.get(OWN_KEY, {}))
    left_out = dict(state.left_out)
    if own:
        for name in _HEAD:  # the rows of unused ids, which MMDetection has no place for
            rows = state.values[name].new_empty(
                len(own["unused"]) + len(state.values[name]), *state.values[name].shape[1:]
            )
            used = [i for i in range(len(rows)) if i not in own["unused"]]
            rows[used], rows[own["unused"]] = state.values[name], own[name]
            state.values[name] = rows
        categories = Categories(tuple(own["category_ids"]), tuple(own["category_names"]))
    else:
        rows = len(state.values["class_head.weight"]) - (state.decoder == "detr")
        data = cast(Mapping[str, Any], meta.get("dataset_meta") or {})
        names = tuple(str(name) for name in data.get("classes") or data.get("CLASSES") or meta.get("CLASSES") or ())
        if len(names) != rows and names:
            left_out["meta.dataset_meta"] = f"it names {len(names)} classes, the class head has {rows}"
        if len(names) != rows:
            names = COCO_80.names if rows == len(COCO_80) else tuple(f"class {i}" for i in range(rows))
        categories = COCO_80 if names == COCO_80.names else Categories(tuple(range(rows)), names)
    model, settings = build_from(state, declared, dilation, source)
    left_out |= {key: "training state" for key in rest if key not in ("meta", OWN_KEY)}
    origin = Origin("mmdetection", state.layout, state.names, left_out)
    return Checkpoint(model, settings, categories, read_input_size(own, source), origin)


def save_mmdetection(checkpoint: Checkpoint, file: Path) -> Written:
    """Write a file that MMDetection loads.

    Rows of the class head whose category is "N/A" are set aside under our own key. Raises ``InputError`` for a network
    that MMDetection does not have.
    """
    check_published_network(checkpoint, "MMDetection")
    settings, categories = checkpoint.settings, checkpoint.categories
    if settings.dilation:
        raise InputError(
            "MMDetection dilates the first block of the last stage too, which is another network than DC5, so it can't "
            "open this model; convert to huggingface or official instead"
        )
    unused = [i for i, name in enumerate(categories.names) if name == UNUSED]
    state = dict(checkpoint.model.state_dict())
    own: dict[str, Any] = {**own_values(checkpoint), "unused": unused}
    for name in _HEAD:
        own[name] = state[name][unused].cpu()
        state[name] = state[name][[i for i in range(len(state[name])) if i not in unused]]
    values, names = write_state(state, "mmdetection", settings.decoder)
    counters = [name.replace("running_var", COUNTER) for name in values if name.endswith("running_var")]
    values |= {name: torch.tensor(0) for name in counters}
    remarks = [f"{len(counters)} {COUNTER} of batch norm were added as 0, which MMDetection expects and nothing reads"]
    if unused:
        remarks.append(
            f"{len(unused)} rows of the class head that stand for no category ({UNUSED}) were set aside under {OWN_KEY!r}, "
            f"from where conditional_detr reads them back"
        )
    classes = tuple(name for name in categories.names if name != UNUSED)
    meta = {"cfg": _config_text(settings, len(classes)), "dataset_meta": {"classes": classes}}
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        torch.save({"meta": meta, "state_dict": values, OWN_KEY: own}, partial)
    return Written(names, remarks)


def _declared(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """``ModelSettings`` fields that the ``model`` of a configuration tells. Raises ``InputError``."""
    kind = config.get("type")
    if kind is not None and kind not in _TYPES.values():
        raise InputError(f"{source} is a {kind} of MMDetection; give a ConditionalDETR or DETR")
    declared: dict[str, Any] = {}
    backbone = config.get("backbone")
    if isinstance(backbone, dict):
        given = cast(Mapping[str, Any], backbone)
        if given.get("style", "pytorch") != "pytorch":
            raise InputError(f"{source} has a backbone of style {given['style']!r}, which is not supported")
        if any(each != 1 for each in given.get("dilations", ())):
            raise InputError(
                f"{source} has a backbone with dilations={given['dilations']}: MMDetection dilates the first block of a "
                f"stage too, which is another network than the published DC5 and is not supported"
            )
        declared["dilation"] = False
    encoder = config.get("encoder", {})
    heads = encoder.get("layer_cfg", {}).get("self_attn_cfg", {}).get("num_heads")
    temperature = config.get("positional_encoding", {}).get("temperature")
    for key, value in (("heads", heads), ("position_temperature", temperature), ("queries", config.get("num_queries"))):
        if value is not None:
            declared[key] = value
    return declared


def _model_config(text: str) -> dict[str, Any]:
    """``model = dict(...)`` of a configuration's text, which is Python; it is parsed, not run. Empty without one."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "model":
            value = _literal(statement.value)
            return cast(dict[str, Any], value) if isinstance(value, dict) else {}
    return {}


def _literal(node: ast.expr) -> Any:
    """The value of constants, containers and ``dict(...)``; None for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {each.arg: _literal(each.value) for each in node.keywords}
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(each) for each in node.elts]
    return node.value if isinstance(node, ast.Constant) else None


def _config_text(settings: ModelSettings, classes: int) -> str:
    """What ``_declared`` reads and a user of MMDetection has to set."""
    assert isinstance(settings.backbone, str)
    self_attention = f"dict(embed_dims={settings.channels}, num_heads={settings.heads}, dropout={settings.dropout})"
    return (
        f"model = dict(type={_TYPES[settings.decoder]!r}, num_queries={settings.queries}, "
        f"backbone=dict(type='ResNet', depth={_DEPTHS[settings.backbone]}, style='pytorch'), "
        f"encoder=dict(num_layers={settings.encoder_layers}, layer_cfg=dict(self_attn_cfg={self_attention})), "
        f"decoder=dict(num_layers={settings.decoder_layers}), bbox_head=dict(num_classes={classes}))\n"
    )
