"""Checkpoint folders: ``config.json``, ``model.safetensors``, ``preprocessor_config.json``, as transformers has them.

The backbone is written as transformers' own ResNet, or with timm's names, which are those of
``microsoft/conditional-detr-resnet-50`` and ``facebook/detr-resnet-50``. DC5 exists there only with timm's. What
transformers has no field for goes under the key ``conditional_detr``.
"""

import json
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file

from conditional_detr.checkpoints.architecture import build_from, named_resnet
from conditional_detr.checkpoints.checkpoint import OWN_KEY, Checkpoint, Origin, Written, network_state
from conditional_detr.checkpoints.own import STANDARD_TEMPERATURE
from conditional_detr.checkpoints.safe_load import load_pth, load_safetensors
from conditional_detr.checkpoints.state import read_state, write_state
from conditional_detr.config import RESNETS, BackboneShape
from conditional_detr.data.images import IMAGENET_MEAN, IMAGENET_STD
from conditional_detr.data.transforms import BoxFrame, InputSize, SizeRule
from conditional_detr.errors import InputError
from conditional_detr.files import whole_file, write_text
from conditional_detr.structures import Categories

_TYPES = {"conditional": "conditional_detr", "detr": "detr"}
_CLASSES = {"conditional": "ConditionalDetr", "detr": "Detr"}


def save_checkpoint(checkpoint: Checkpoint, folder: Path, timm_backbone: bool | None = None) -> Written:
    """Write a checkpoint folder that transformers opens.

    timm_backbone: with timm's names for the backbone; by default for DC5 only. Warns when transformers would compute
    something else from the folder. Raises ``InputError`` when timm has no such backbone.
    """
    settings = checkpoint.settings
    named = isinstance(settings.backbone, str)
    timm = settings.dilation and named if timm_backbone is None else timm_backbone
    if timm and not named:
        raise InputError("timm has no ResNet of this shape: leave out --timm-backbone (in Python: timm_backbone)")
    folder.mkdir(parents=True, exist_ok=True)
    for text in _differences(checkpoint, timm):
        warnings.warn(f"{folder}: {text}; conditional_detr reads it back as it is", stacklevel=2)
    values, names = write_state(network_state(checkpoint.model), "hub" if timm else "hub-native", settings.decoder)
    write_text(folder / "config.json", json.dumps(_config(checkpoint, timm), indent=2))
    write_text(folder / "preprocessor_config.json", json.dumps(_preprocessor(checkpoint), indent=2))
    with whole_file(folder / "model.safetensors") as partial:
        save_file(values, partial, metadata={"format": "pt"})
    remarks: list[str] = []
    if checkpoint.input_size.rule == "published":
        remarks.append(
            "transformers rounds the longer side otherwise where its limit binds: images can differ by a few pixels there"
        )
    return Written(names, remarks)


def load_checkpoint(folder: Path, dilation: bool | None = None, boxes: BoxFrame | None = None) -> Checkpoint:
    """Read a checkpoint folder. Raises ``InputError`` naming the file and what is wrong with it.

    dilation: what ``config.json`` says must be this, when it is given. boxes: what predicted boxes are relative to, in
    place of what the folder says; warns when nobody says and it has to be concluded.
    """
    file = folder / "config.json"
    config = _read_json(file)
    if config.get("model_type") not in _TYPES.values():
        raise InputError(f"{file} is of a {config.get('model_type')!r} model; conditional_detr or detr is needed")
    for key, plain in {"activation_function": "relu", "position_embedding_type": "sine"}.items():
        if config.get(key, plain) != plain:
            raise InputError(f"{file}: {key}={config[key]!r} is not supported; give a model with {plain!r}")
    weights = folder / "model.safetensors"
    if weights.is_file():
        given = load_safetensors(weights)
    elif (folder / "pytorch_model.bin").is_file():
        weights = folder / "pytorch_model.bin"
        given = load_pth(weights)
    elif (folder / "model.safetensors.index.json").is_file():
        raise InputError(f"{folder} is sharded; open it with transformers and save it with max_shard_size='5GB'")
    else:
        raise InputError(f"{folder} holds neither model.safetensors nor pytorch_model.bin; give a complete folder")
    if not isinstance(given, dict):
        raise InputError(f"{weights} must map names to tensors")
    state = read_state(given, weights)
    model, settings = build_from(state, _declared(config, file), dilation, folder)
    classes = model.class_head.out_features - model.softmax
    categories = _categories(config, classes, file)
    if len(categories) != classes:
        raise InputError(f"{file}: id2label names {len(categories)} classes, the class head of {weights} has {classes}")
    input_size = _input_size(_read_json(folder / "preprocessor_config.json"), boxes, folder)
    origin = Origin("huggingface", state.layout, state.names, state.left_out)
    return Checkpoint(model, settings, categories, input_size, origin)


# --- writing ---


def _differences(checkpoint: Checkpoint, timm: bool) -> list[str]:
    """What transformers would do otherwise."""
    settings = checkpoint.settings
    found: list[str] = []
    if settings.position_temperature != STANDARD_TEMPERATURE:
        ignored = f"position_temperature={settings.position_temperature:g}"
        found.append(f"transformers ignores {ignored} and will compute other boxes from this checkpoint")
    if (settings.classification == "softmax") != (settings.decoder == "detr"):
        found.append(f"transformers has no {settings.classification} classification for this decoder")
    if settings.dilation and not timm:
        found.append("transformers' own ResNet has no dilation and will compute something else")
    if checkpoint.input_size.boxes != "image":
        found.append("boxes are relative to the padded image, which transformers' own pipeline does not know")
    return found


def _config(checkpoint: Checkpoint, timm: bool) -> dict[str, Any]:
    settings, categories = checkpoint.settings, checkpoint.categories
    shape = settings.backbone_shape()
    own: dict[str, Any] = {"category_ids": list(categories.ids), "category_names": list(categories.names)}
    if settings.position_temperature != STANDARD_TEMPERATURE:
        own["position_temperature"] = settings.position_temperature
    if settings.classification != ("softmax" if settings.decoder == "detr" else "sigmoid"):
        own["classification"] = settings.classification
    if settings.dilation and not timm:
        own["dilation"] = True
    if timm:
        backbone = {"use_timm_backbone": True, "backbone": settings.backbone, "backbone_config": None}
    else:
        backbone = {"use_timm_backbone": False, "backbone": None, "backbone_config": _resnet_config(shape)}
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


_MAX_SIDE = 100_000
# rule of ``InputSize`` -> keys of the processor's size
_SIZE_KEYS: dict[SizeRule, tuple[str, str]] = {
    "transformers": ("shortest_edge", "longest_edge"),
    "published": ("shortest_edge", "longest_edge"),
    "fit": ("max_height", "max_width"),
    "stretch": ("height", "width"),
}


def _preprocessor(checkpoint: Checkpoint) -> dict[str, Any]:
    size = checkpoint.input_size
    sides = dict(zip(_SIZE_KEYS[size.rule], size.sides, strict=True))
    padded = {} if size.padded is None else {"pad_size": {"height": size.padded[0], "width": size.padded[1]}}
    return {
        "image_processor_type": f"{_CLASSES[checkpoint.settings.decoder]}ImageProcessor",
        "format": "coco_detection",
        "do_resize": True,
        "size": sides,
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "do_pad": True,
        **padded,
        OWN_KEY: {"rule": size.rule, "boxes": size.boxes, "size": sides, **padded},
    }


# --- reading ---


def _own(config: Mapping[str, Any]) -> Mapping[str, Any]:
    own = config.get(OWN_KEY)
    return cast(Mapping[str, Any], own) if isinstance(own, dict) else {}


def _declared(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """``ModelSettings`` fields that a config tells. Raises ``InputError``."""
    resnet = cast(Mapping[str, Any], config.get("backbone_config") or {})
    own = _own(config)
    native = resnet.get("model_type") == "resnet"
    if native:  # which can't dilate, whatever the config says
        dilation = bool(own.get("dilation", False))
    else:
        kwargs = cast(Mapping[str, Any], config.get("backbone_kwargs") or {})
        stride = resnet.get("output_stride") or kwargs.get("output_stride") or (16 if config.get("dilation") else 32)
        if stride not in (16, 32):
            raise InputError(f"{file}: a backbone with output_stride={reprlib.repr(stride)} is not supported")
        dilation = stride == 16
    heads = config.get("encoder_attention_heads")
    if heads != config.get("decoder_attention_heads"):
        raise InputError(
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
            # It changes what transformers computes, not only what it trains.
            "norm_between_layers": bool(config.get("auxiliary_loss")),
        }
    except KeyError as error:
        raise InputError(f"{file} lacks {error.args[0]!r}; give a complete checkpoint folder") from error
    for key in ("position_temperature", "classification"):
        if key in own:
            declared[key] = own[key]
    name = config.get("backbone") or resnet.get("backbone")  # of timm, with the tag of its weights behind a dot
    if native:
        shape = {"block": "layer_type", "depths": "depths", "widths": "hidden_sizes", "stem_width": "embedding_size"}
        declared["backbone"] = named_resnet({ours: resnet.get(theirs) for ours, theirs in shape.items()})
        if resnet.get("downsample_in_bottleneck") or resnet.get("downsample_in_first_stage"):
            raise InputError(
                f"{file}: a ResNet that downsamples in its 1x1 convolutions or first stage is not supported"
            )
        if resnet.get("hidden_act", "relu") != "relu":
            raise InputError(f"{file}: a ResNet with {resnet['hidden_act']!r} is not supported; give one with 'relu'")
    else:
        declared["backbone"] = str(name).partition(".")[0]
        if declared["backbone"] not in RESNETS:
            raise InputError(f"{file}: backbone {reprlib.repr(name)} is not supported; one of {', '.join(RESNETS)} is")
    return declared


def _categories(config: Mapping[str, Any], classes: int, file: Path) -> Categories:
    given = config.get("id2label", {i: f"LABEL_{i}" for i in range(classes)})  # transformers leaves such names out
    try:
        labels = {int(index): str(name) for index, name in given.items()}
        names = [labels[i] for i in range(len(labels))]
        own = _own(config)  # which transformers carries along when it saves a fine-tune with other labels
        ids = own["category_ids"] if own.get("category_names") == names else range(len(labels))
        return Categories(tuple(int(id_) for id_ in ids), tuple(names))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        found = reprlib.repr(list(given) if isinstance(given, dict) else given)
        raise InputError(f"{file}: id2label must name classes 0, 1, 2, ...; it names {found}") from error


def _input_size(config: Mapping[str, Any], boxes: BoxFrame | None, folder: Path) -> InputSize:
    """What a preprocessor does to sizes; ``boxes`` when it is known. Raises ``InputError`` for a preprocessing that ours does not do."""
    file = folder / "preprocessor_config.json"
    expected = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD), "resample": 2}
    expected |= dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    for key, value in expected.items():
        if config.get(key, value) != value:
            given = reprlib.repr(config[key])
            raise InputError(f"{file}: {key}={given} is not supported; {value} is what the published models need")
    if abs(config.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise InputError(f"{file}: rescale_factor={config['rescale_factor']} is not supported; 1/255 is")
    size = config.get("size", {})
    if isinstance(size, int):  # as early releases wrote it
        size = {"shortest_edge": size}
    if "shortest_edge" in size and "longest_edge" not in size:
        size = {**size, "longest_edge": config.get("max_size", InputSize().sides[1])}
    own = _own(config)  # which transformers carries along when it saves a fine-tune with other sizes
    if (own.get("size"), own.get("pad_size")) != (config.get("size"), config.get("pad_size")):
        own = {}
    boxes = boxes or own.get("boxes")
    pad = config.get("pad_size") if config.get("do_pad", True) else None
    try:
        rules: list[SizeRule] = [rule for rule, keys in _SIZE_KEYS.items() if all(size.get(key) for key in keys)]
        first, second = _SIZE_KEYS[rules[0]]
        sides = int(size[first]), int(size[second])
        padded = None if pad is None else (int(pad["height"]), int(pad["width"]))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: size must have shortest_edge and longest_edge, or max_height and max_width, or height and width; "
            f"got {size} and pad_size {pad}"
        ) from error
    if not all(1 <= side <= _MAX_SIDE for side in (*sides, *(padded or ()))):
        raise InputError(f"{file}: sizes must be from 1 to {_MAX_SIDE} pixels, got {size} and pad_size {pad}")
    if boxes is None and padded is not None:
        # transformers normalises targets by the padded image (its PR 28363), and its guide trains without a mask.
        boxes = "padded"
        warnings.warn(
            f"{file} pads images to {padded[0]} x {padded[1]}: boxes are taken to be relative to the padded image, and "
            f"padding not to be masked, as transformers' guide for fine-tuning does it; otherwise say "
            f"--boxes padded-with-mask or --boxes image (in Python: boxes)",
            stacklevel=2,
        )
    rule: SizeRule = own.get("rule", rules[0])
    return InputSize(sides, rule, padded, boxes or "image")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); give a complete checkpoint folder") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return cast(dict[str, Any], content)
