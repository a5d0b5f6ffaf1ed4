"""Checkpoint folders of transformers: ``config.json``, ``model.safetensors``, ``preprocessor_config.json``.

The backbone is written as transformers' own ResNet, or with timm's names, as in ``microsoft/conditional-detr-resnet-50`` and
``facebook/detr-resnet-50``. transformers supports DC5 with timm's names only. Settings for which transformers has no field are
stored under the key ``conditional_detr``.
"""

import json
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file

from conditional_detr.architecture import Architecture
from conditional_detr.checkpoints.checkpoint import OWN_KEY, Checkpoint, Given, Parsed, Written, network_state
from conditional_detr.checkpoints.coco_categories import unnamed
from conditional_detr.checkpoints.formats.common import STANDARD_TEMPERATURE
from conditional_detr.checkpoints.formats.huggingface.names import HUB, HUB_NATIVE, LAYOUTS
from conditional_detr.checkpoints.formats.huggingface.preprocessor import FILE, preprocessor_config, read_size
from conditional_detr.checkpoints.formats.huggingface.weights import PICKLED, SAFETENSORS, read_weights
from conditional_detr.checkpoints.state import read_state, write_state
from conditional_detr.errors import CheckpointError
from conditional_detr.files import read_json, whole_file, write_text
from conditional_detr.model.backbones import families, family
from conditional_detr.record import Categories, StoredRecord, read_record

__all__ = ["LAYOUTS", "MARKER", "differences", "read", "write"]

MARKER = "config.json"
_REMEDY = "give a complete checkpoint folder, or copy it again"
_TYPES = {"conditional": "conditional_detr", "detr": "detr"}
_CLASSES = {"conditional": "ConditionalDetr", "detr": "Detr"}
_LAST = 4  # index of the last of timm's feature maps
# Fields of ``Architecture`` that transformers has no field for, or ignores.
_WITHOUT_FIELD = ("position_temperature", "classification", "dilation")


def write(checkpoint: Checkpoint, out: Path, timm_backbone: bool | None = None) -> Written:
    """Write a checkpoint folder that transformers opens.

    timm_backbone: use timm's names for the backbone; by default for DC5, and where transformers has no others. Warns when
    transformers would compute something else from the folder. Raises ``CheckpointError`` when the backbone does not exist
    under the names asked for.
    """
    architecture = checkpoint.architecture
    named = isinstance(architecture.backbone, str)
    native = family(architecture.backbone_family).to_transformers(architecture.backbone)
    timm = named and (native is None or architecture.dilation) if timm_backbone is None else timm_backbone
    if timm and not named:
        raise CheckpointError("timm has no backbone of this shape: leave out timm_backbone", argument="timm_backbone")
    if not timm and native is None:
        raise CheckpointError(
            f"transformers has {architecture.backbone} with timm's names only: leave out timm_backbone",
            argument="timm_backbone",
        )
    out.mkdir(parents=True, exist_ok=True)
    for text in differences(checkpoint, timm):
        warnings.warn(f"{out}: {text}; conditional_detr reads it back unchanged", stacklevel=2)
    values, names = write_state(network_state(checkpoint.model), HUB if timm else HUB_NATIVE, architecture.decoder)
    preprocessor = preprocessor_config(checkpoint.record, _CLASSES[architecture.decoder])
    write_text(out / MARKER, json.dumps(_config(checkpoint, None if timm else native), indent=2))
    write_text(out / FILE, json.dumps(preprocessor, indent=2))
    with whole_file(out / SAFETENSORS) as partial:
        save_file(values, partial, metadata={"format": "pt"})
    remarks: list[str] = []
    if checkpoint.input_size.rule == "published":
        remarks.append(
            "transformers rounds the longer side differently when its limit applies, so image sizes can differ by a few pixels"
        )
    return Written(names, remarks)


def read(given: Given) -> Parsed:
    folder = given.path
    if given.state is not None:
        raise CheckpointError(
            f"{folder} is a part of a Hugging Face checkpoint; give its folder, with {MARKER} in it, or put the file into a folder as "
            f"{PICKLED}, beside the {MARKER} of its model"
        )
    file = folder / MARKER
    config = read_json(file, CheckpointError, _REMEDY)
    _check_kind(config, file)
    record = read_record(config.get(OWN_KEY), file)
    state = read_state(*read_weights(folder))
    declared = _declared(config, record, file)
    softmax = declared.get("classification", "softmax" if declared["decoder"] == "detr" else "sigmoid") == "softmax"
    classes = state.classes(softmax)
    categories = _categories(config, record, classes, file) if classes else unnamed(0)
    if len(categories) != classes:
        raise CheckpointError(f"{file}: id2label names {len(categories)} classes, the class head has {classes}")
    left_out = dict.fromkeys(state.rest, "training state") | state.left_out
    return Parsed(
        state,
        declared,
        categories,
        read_size(folder, record.input_size, given.boxes),
        left_out,
        record.thresholds_of(categories),
    )


def _check_kind(config: Mapping[str, Any], file: Path) -> None:
    """Raise ``CheckpointError`` for the config of another model, and for settings that are not supported."""
    if config.get("model_type") not in _TYPES.values():
        kind = reprlib.repr(config.get("model_type"))
        raise CheckpointError(f"{file} is of a {kind} model; give conditional_detr or detr")
    for key, plain in {"activation_function": "relu", "position_embedding_type": "sine"}.items():
        if config.get(key, plain) != plain:
            given = reprlib.repr(config[key])
            raise CheckpointError(f"{file}: {key}={given} is not supported; give a model with {plain!r}")


# --- writing ---


def differences(checkpoint: Checkpoint, timm: bool) -> list[str]:
    """Return sentences that say what transformers would compute differently."""
    architecture = checkpoint.architecture
    found: list[str] = []
    if architecture.position_temperature != STANDARD_TEMPERATURE:
        ignored = f"position_temperature={architecture.position_temperature:g}"
        found.append(f"transformers ignores {ignored} and will compute other boxes from this checkpoint")
    if (architecture.classification == "softmax") != (architecture.decoder == "detr"):
        found.append(f"transformers has no {architecture.classification} classification for this decoder")
    if architecture.dilation and not timm:
        found.append("transformers' own ResNet has no dilation and will compute something else")
    if checkpoint.input_size.boxes != "image":
        found.append("boxes are relative to the padded image, which transformers' own pipeline does not support")
    return found


def _config(checkpoint: Checkpoint, native: dict[str, Any] | None) -> dict[str, Any]:
    settings, categories = checkpoint.architecture, checkpoint.categories
    if native is None:
        backbone = {"use_timm_backbone": True, **_of_timm(settings)}
    else:
        backbone = {"use_timm_backbone": False, "backbone": None, "backbone_config": native}
    return {
        "architectures": [f"{_CLASSES[settings.decoder]}ForObjectDetection"],
        "model_type": _TYPES[settings.decoder],
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
        "auxiliary_loss": settings.norm_between_layers,
        "id2label": {str(i): name for i, name in enumerate(categories.names)},
        "label2id": {name: i for i, name in enumerate(categories.names)},
        "dtype": "float32",
        OWN_KEY: checkpoint.record.to_dict(),
    }


def _of_timm(architecture: Architecture) -> dict[str, Any]:
    name, index = family(architecture.backbone_family).TIMM[cast(str, architecture.backbone)]
    if index == _LAST:
        return {"backbone": name, "backbone_config": None}
    config = {"model_type": "timm_backbone", "backbone": name, "out_indices": [index], "features_only": True}
    return {"backbone": None, "backbone_config": config}


# --- reading ---


def _declared(config: Mapping[str, Any], record: StoredRecord, file: Path) -> dict[str, Any]:
    """Read the ``Architecture`` fields that a config states. Raises ``CheckpointError`` for unsupported values."""
    own = {key: record.architecture[key] for key in _WITHOUT_FIELD if key in record.architecture}
    backbone, kwargs = (_mapping(config, key, file) for key in ("backbone_config", "backbone_kwargs"))
    try:
        found = (each.from_transformers(backbone) for each in families())
        native = next((each for each in found if each is not None), None)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if native is not None:  # transformers' own ResNet can't dilate, whatever the config says
        dilation = bool(own.get("dilation", False))
    else:
        stride = backbone.get("output_stride") or kwargs.get("output_stride") or (16 if config.get("dilation") else 32)
        if stride not in (16, 32):
            raise CheckpointError(f"{file}: a backbone with output_stride={reprlib.repr(stride)} is not supported")
        dilation = stride == 16
    heads = config.get("encoder_attention_heads")
    if heads != config.get("decoder_attention_heads"):
        raise CheckpointError(
            f"{file}: encoder and decoder have different numbers of attention heads, which is not supported"
        )
    try:
        declared: dict[str, Any] = {
            "decoder": {kind: decoder for decoder, kind in _TYPES.items()}[config["model_type"]],
            "dilation": dilation,
            "channels": config["d_model"],
            "heads": heads,
            "feed_forward": config["encoder_ffn_dim"],
            "encoder_layers": config["encoder_layers"],
            "decoder_layers": config["decoder_layers"],
            "queries": config["num_queries"],
            "dropout": config["dropout"],
            # auxiliary_loss changes what transformers computes, not only how it trains.
            "norm_between_layers": bool(config.get("auxiliary_loss")),
        }
    except KeyError as error:
        raise CheckpointError(f"{file} lacks {error.args[0]!r}; give a complete checkpoint folder") from error
    declared["backbone"] = native or _from_timm(config, backbone, kwargs, file)
    return {**declared, **{key: value for key, value in own.items() if key != "dilation"}}


def _from_timm(config: Mapping[str, Any], backbone: Mapping[str, Any], kwargs: Mapping[str, Any], file: Path) -> str:
    """Return our name of a backbone of timm, whose output is the last of its feature maps that the config asks for."""
    name = config.get("backbone") or backbone.get("backbone")
    indices: Any = backbone.get("out_indices") or kwargs.get("out_indices") or [_LAST]
    index = indices[-1] if isinstance(indices, list) else indices
    wanted = (str(name).partition(".")[0], _LAST if index == -1 else index)  # after a dot stands the tag of the weights
    known = {timm: ours for each in families() for ours, timm in each.TIMM.items()}
    if not isinstance(index, int) or wanted not in known:
        named = sorted({timm for timm, _ in known})
        which = "" if wanted[0] not in named else f" with out_indices={reprlib.repr(indices)}"
        raise CheckpointError(
            f"{file}: backbone {reprlib.repr(name)}{which} is not supported; use one of {', '.join(named)}"
        )
    return known[wanted]


def _mapping(config: Mapping[str, Any], key: str, file: Path) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: {key} must be an object, got {reprlib.repr(value)}; {_REMEDY}")
    return cast("Mapping[str, Any]", value)


def _categories(config: Mapping[str, Any], record: StoredRecord, classes: int, file: Path) -> Categories:
    given = config.get("id2label", {i: f"LABEL_{i}" for i in range(classes)})  # transformers omits default names
    try:
        labels = {int(index): str(name) for index, name in given.items()}
        names = tuple(labels[i] for i in range(len(labels)))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        found = reprlib.repr(list(given) if isinstance(given, dict) else given)
        raise CheckpointError(f"{file}: id2label must name classes 0, 1, 2, ...; it names {found}") from error
    stored = record.categories  # transformers keeps them when it saves a fine-tuned model with other labels
    return stored if stored is not None and stored.names == names else Categories(tuple(range(len(names))), names)
