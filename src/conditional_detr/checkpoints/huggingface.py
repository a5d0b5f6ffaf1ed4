"""Checkpoint folders: ``config.json``, ``model.safetensors``, ``preprocessor_config.json``, as transformers has them.

The backbone is written as transformers' own ResNet. DC5 exists there only with timm's, so it is written in the layout of
``microsoft/conditional-detr-resnet-50``. What transformers has no field for goes under the key ``conditional_detr``.
"""

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from conditional_detr.checkpoints import names
from conditional_detr.checkpoints.checkpoint import COUNTER, Checkpoint, load_strictly
from conditional_detr.config import RESNETS, BackboneShape, ModelSettings
from conditional_detr.data.images import IMAGENET_MEAN, IMAGENET_STD
from conditional_detr.errors import InputError
from conditional_detr.files import write_text
from conditional_detr.model.network import build_model
from conditional_detr.structures import Categories

OWN_KEY = "conditional_detr"
STANDARD_TEMPERATURE = ModelSettings().position_temperature


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint folder that transformers opens; every file is written under another name and renamed.

    Warns when transformers would compute something else from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = checkpoint.settings
    if settings.position_temperature != STANDARD_TEMPERATURE:
        warnings.warn(
            f"{folder}: transformers ignores position_temperature={settings.position_temperature:g} and will compute other "
            f"boxes from this checkpoint; conditional_detr reads it back as it is",
            stacklevel=2,
        )
    if settings.dilation and not isinstance(settings.backbone, str):
        warnings.warn(f"{folder}: transformers has no dilated ResNet of this shape and can't open it", stacklevel=2)
    write_text(folder / "config.json", json.dumps(_config(checkpoint), indent=2))
    write_text(folder / "preprocessor_config.json", json.dumps(_preprocessor(checkpoint), indent=2))
    state = to_hub(checkpoint.model.state_dict(), timm_backbone=settings.dilation)
    partial = folder / ".model.safetensors.partial"
    save_file(state, partial, metadata={"format": "pt"})
    os.replace(partial, folder / "model.safetensors")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder. Raises ``InputError`` naming the file and what is wrong with it."""
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "conditional_detr":
        raise InputError(f"{folder}/config.json is of a {config.get('model_type')!r} model; conditional_detr is needed")
    settings, categories = _settings(config, folder), _categories(config, folder)
    model = build_model(settings, len(categories))
    weights = folder / "model.safetensors"
    try:
        state = load_file(weights)
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no model.safetensors; give a complete checkpoint folder") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{weights} can't be read ({error}); copy or download it again") from error
    ours = [name for name in model.state_dict() if not name.endswith(COUNTER)]
    load_strictly(model, from_hub(state, ours), weights)
    size = _read_json(folder / "preprocessor_config.json").get("size", {})
    try:
        short_side, max_size = int(size["shortest_edge"]), int(size["longest_edge"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}/preprocessor_config.json needs size.shortest_edge and size.longest_edge") from error
    return Checkpoint(model, settings, categories, short_side, max_size)


def to_hub(state: Mapping[str, Tensor], timm_backbone: bool) -> dict[str, Tensor]:
    """Our parameters under the names of the hub, in float32 and contiguous."""
    backbone_name = names.timm_backbone_name if timm_backbone else names.native_backbone_name
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(COUNTER):
            continue
        value = value.detach().cpu().float().contiguous()
        if name.startswith("backbone."):
            out[backbone_name(name)] = value
        elif ".in_proj." in name:
            target = names.hub_name(name)
            for part, rows in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True):
                out[target.replace("in_proj", part)] = rows.clone()
        else:
            out[names.hub_name(name)] = value
    return out


def from_hub(state: Mapping[str, Tensor], ours: Iterable[str]) -> dict[str, Tensor]:
    """The hub's parameters under the names of ``ours``; what has no counterpart keeps its name."""
    rest = dict(state)
    out: dict[str, Tensor] = {}
    for name in ours:
        if ".in_proj." in name:
            targets = [names.hub_name(name).replace("in_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
            if all(target in rest for target in targets):
                out[name] = torch.cat([rest.pop(target) for target in targets])
        else:
            candidates = (
                (names.native_backbone_name(name), names.timm_backbone_name(name))
                if name.startswith("backbone.")
                else (names.hub_name(name),)
            )
            for target in candidates:
                if target in rest:
                    out[name] = rest.pop(target)
    return {**out, **rest}


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    settings, categories = checkpoint.settings, checkpoint.categories
    own: dict[str, Any] = {"category_ids": list(categories.ids)}
    if settings.position_temperature != STANDARD_TEMPERATURE:
        own["position_temperature"] = settings.position_temperature
    shape = settings.backbone_shape()
    if settings.dilation:
        name = settings.backbone if isinstance(settings.backbone, str) else None
        backbone = {"use_timm_backbone": True, "backbone": name, "backbone_config": None}
        if name is None:
            own["backbone"] = shape.model_dump(mode="json")
    else:
        backbone = {"use_timm_backbone": False, "backbone": None, "backbone_config": _resnet_config(shape)}
    return {
        "architectures": ["ConditionalDetrForObjectDetection"],
        "model_type": "conditional_detr",
        **backbone,
        "use_pretrained_backbone": False,
        "dilation": settings.dilation,
        "d_model": settings.channels,
        "encoder_layers": settings.encoder_layers,
        "encoder_attention_heads": settings.heads,
        "encoder_ffn_dim": settings.feed_forward,
        "decoder_layers": settings.decoder_layers,
        "decoder_attention_heads": settings.heads,
        "decoder_ffn_dim": settings.feed_forward,
        "num_queries": settings.queries,
        "dropout": settings.dropout,
        "attention_dropout": settings.dropout,
        "activation_dropout": settings.dropout,
        "activation_function": "relu",
        "position_embedding_type": "sine",
        "auxiliary_loss": False,
        "id2label": {str(i): name for i, name in enumerate(categories.names)},
        "label2id": {name: i for i, name in enumerate(categories.names)},
        "dtype": "float32",
        OWN_KEY: own,
    }


def _resnet_config(shape: BackboneShape) -> dict[str, Any]:
    return {
        "model_type": "resnet",
        "layer_type": shape.block,
        "depths": list(shape.depths),
        "hidden_sizes": list(shape.widths),
        "embedding_size": shape.stem_width,
        "downsample_in_bottleneck": False,
        "downsample_in_first_stage": False,
        "out_features": [f"stage{len(shape.depths)}"],
    }


def _preprocessor(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "image_processor_type": "ConditionalDetrImageProcessor",
        "format": "coco_detection",
        "do_resize": True,
        "size": {"shortest_edge": checkpoint.short_side, "longest_edge": checkpoint.max_size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "do_pad": True,
    }


def _settings(config: Mapping[str, Any], folder: Path) -> ModelSettings:
    own = cast(Mapping[str, Any], config.get(OWN_KEY, {}))
    backbone: Any = own.get("backbone") or config.get("backbone")
    resnet = config.get("backbone_config")
    if isinstance(resnet, dict) and cast(dict[str, Any], resnet).get("model_type") == "resnet":
        backbone = _known_resnet(cast(dict[str, Any], resnet))
    try:
        return ModelSettings(
            backbone=backbone,
            dilation=config["dilation"],
            batch_norm="frozen",
            frozen_stages=1,
            channels=config["d_model"],
            heads=config["encoder_attention_heads"],
            feed_forward=config["encoder_ffn_dim"],
            encoder_layers=config["encoder_layers"],
            decoder_layers=config["decoder_layers"],
            queries=config["num_queries"],
            dropout=config["dropout"],
            position_temperature=own.get("position_temperature", STANDARD_TEMPERATURE),
        )
    except KeyError as error:
        raise InputError(f"{folder}/config.json lacks {error.args[0]!r}; give a complete checkpoint folder") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{folder}/config.json: {first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error


def _known_resnet(config: Mapping[str, Any]) -> str | dict[str, Any]:
    shape = {
        "block": config.get("layer_type"),
        "depths": config.get("depths"),
        "widths": config.get("hidden_sizes"),
        "stem_width": config.get("embedding_size"),
    }
    return next((name for name, known in RESNETS.items() if known.model_dump(mode="json") == shape), shape)


def _categories(config: Mapping[str, Any], folder: Path) -> Categories:
    own = cast(Mapping[str, Any], config.get(OWN_KEY, {}))
    try:
        labels = {int(index): str(name) for index, name in config["id2label"].items()}
        ids = own.get("category_ids", range(len(labels)))
        return Categories(tuple(int(id_) for id_ in ids), tuple(labels[i] for i in range(len(labels))))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{folder}/config.json: id2label must name classes 0, 1, 2, ... ({error!r})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); give a complete checkpoint folder") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return cast(dict[str, Any], content)
