"""Weights are found wherever training programs put them: under keys, behind prefixes, averaged or not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from conditional_detr.architecture import Architecture, BackboneShape
from conditional_detr.checkpoints.backbone_weights import load_backbone_weights
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.checkpoints.state import write_state
from conditional_detr.config import ModelSettings
from conditional_detr.errors import InputError
from conditional_detr.model.network import build_model
from tests.checkpoints.models import LAYOUTS, SMALL, randomized, save_checkpoint

SHAPE = BackboneShape(block="basic", depths=(1,), widths=(16,), stem_width=8)
ARGS = {"nheads": 4, "dilation": False}
HEADS = pytest.mark.filterwarnings("ignore:.*does not say how many attention heads")


@pytest.fixture(scope="module")
def model():
    return randomized(ModelSettings(backbone=SHAPE, batch_norm="frozen", **SMALL)).model


@pytest.fixture(scope="module")
def official(model):
    return write_state(model.state_dict(), LAYOUTS["official"], "conditional")[0]


@pytest.fixture(scope="module")
def mmdetection(model):
    return write_state(model.state_dict(), LAYOUTS["mmdetection"], "conditional")[0]


@pytest.fixture
def folder(model, tmp_path):
    save_checkpoint(randomized(ModelSettings(backbone=SHAPE, batch_norm="frozen", **SMALL)), tmp_path / "hf")
    return tmp_path / "hf"


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def plus(state, number):
    return {name: value + number for name, value in state.items()}


def opened(content, tmp_path, model, number=0.0):
    """Open a file with this content, and check that its weights are those of the model plus a number."""
    file = tmp_path / "x.pth"
    torch.save(content, file)
    checkpoint = open_checkpoint(file, dilation=False)
    name = "decoder.norm.bias"
    assert torch.equal(checkpoint.model.state_dict()[name], model.state_dict()[name] + number)
    return checkpoint


PREFIXES = [
    "_orig_mod.",
    "module.",
    "model.",
    "module._orig_mod.",
    "model._orig_mod.module.",
    "net.",
    "detector.network.",
    "detr.",
]


@HEADS
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes(prefix, official, mmdetection, folder, model, tmp_path):
    """A prefix in front of all names, in files of every format."""
    checkpoint = opened({"model": prefixed(official, prefix), "args": ARGS}, tmp_path, model)
    assert checkpoint.origin.format == "official"
    assert checkpoint.origin.names["input_proj.bias"] == [prefix + "input_proj.bias"]
    opened(prefixed(official, prefix), tmp_path, model)
    assert opened({"state_dict": prefixed(mmdetection, prefix)}, tmp_path, model).origin.format == "mmdetection"
    weights = folder / "model.safetensors"
    values = prefixed(load_file(weights), prefix)
    weights.unlink()  # old versions of safetensors read values from the file when they are used
    save_file(values, weights)
    assert torch.equal(open_checkpoint(folder).model.input_proj.bias, model.input_proj.bias)
    weights.unlink()
    torch.save(values, folder / "pytorch_model.bin")
    assert torch.equal(open_checkpoint(folder).model.input_proj.bias, model.input_proj.bias)
    save_file(prefixed(official, prefix), tmp_path / "x.safetensors")
    assert open_checkpoint(tmp_path / "x.safetensors", dilation=False).origin.format == "official"


@HEADS
def test_parts_that_are_wrapped_on_their_own(official, model, tmp_path):
    """As by compiling or distributing a submodule, and by activation checkpointing."""
    wrapped = {
        name.replace("backbone.0.", "backbone._orig_mod.0.").replace("encoder.layers.0.", "encoder.layers.0._checkpoint_wrapped_module."): value
        for name, value in official.items()
    }  # fmt: skip
    opened(wrapped, tmp_path, model)
    opened(prefixed(wrapped, "_fsdp_wrapped_module."), tmp_path, model)


@HEADS
@pytest.mark.parametrize(
    "path",
    ["", "model", "state_dict", "model_state_dict", "net", "module", "weights", "checkpoint.model", "a.b.c"],
)
def test_keys(path, official, model, tmp_path):
    content, args = official, {"args": ARGS}
    for key in reversed(path.split(".") if path else []):
        content = {key: content, **args, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}, "epoch": 3}
        args = {}
    assert opened(content, tmp_path, model).architecture.heads == (4 if path else 8)


@HEADS
@pytest.mark.parametrize(
    "wrap",
    [
        lambda ema: {"ema": ema},
        lambda ema: {"model_ema": ema, "epoch": 3},
        lambda ema: {"ema_state_dict": ema},
        lambda ema: {"ema": {"module": ema, "updates": 9}},
        lambda ema: {"ema": {**prefixed(ema, "module."), "n_averaged": torch.tensor(4)}},
        lambda ema: {**prefixed(ema, "module."), "n_averaged": torch.tensor(4)},
    ],
)
def test_only_averaged_weights(wrap, official, model, tmp_path):
    opened(wrap(official), tmp_path, model)


@HEADS
@pytest.mark.parametrize(
    "wrap",
    [
        lambda plain, ema: {"model": plain, "model_ema": ema},
        lambda plain, ema: {"ema": ema, "model": plain},
        lambda plain, ema: {"model": plain, "ema": {"module": prefixed(ema, "module."), "updates": 9}},
        lambda plain, ema: {"state_dict": plain, "state_dict_ema": ema},
        lambda plain, ema: {"state_dict": plain, "ema_state_dict": prefixed(ema, "module.")},
        lambda plain, ema: {"state_dict": {**prefixed(plain, "model."), **prefixed(ema, "ema_model.")}},
        lambda plain, ema: {"state_dict": ema, "current_model_state": plain},  # Lightning's WeightAveraging
        lambda plain, ema: {"model": plain, "swa_model": {**prefixed(ema, "module."), "n_averaged": torch.tensor(1)}},
    ],
)
def test_averaged_weights_come_before_others(wrap, official, model, tmp_path, caplog):
    caplog.set_level("INFO")
    opened(wrap(plus(official, 1), official), tmp_path, model)
    assert "took " in caplog.text
    assert ", not '" in caplog.text


@HEADS
def test_averages_of_some_parameters_are_not_taken(official, model, tmp_path):
    """As of a loop over the trained parameters, without frozen ones and buffers."""
    some = {name: value + 1 for name, value in official.items() if not name.startswith("backbone")}
    opened({"model": official, "ema": some, "best": {"class_embed.bias": torch.ones(3)}}, tmp_path, model)


@HEADS
def test_mmengine_swaps_the_averaged_weights(mmdetection, model, tmp_path, caplog):
    """Its EMAHook saves the averaged weights as state_dict, and the others as ema_state_dict."""
    caplog.set_level("INFO")
    other = {**prefixed(plus(mmdetection, 1), "module."), "steps": torch.tensor(7)}
    opened({"state_dict": mmdetection, "ema_state_dict": other, "meta": {}}, tmp_path, model)
    assert "took the averaged weights 'state_dict', not 'ema_state_dict.module'" in caplog.text
    opened({"ema_state_dict": other}, tmp_path, model, number=1)


@HEADS
def test_equal_sets_are_one(official, model, tmp_path):
    """As when a network is an attribute of two wrappers."""
    opened({**prefixed(official, "model."), **prefixed(official, "net.")}, tmp_path, model)


@HEADS
def test_what_is_beside_the_network_is_left_out(official, model, tmp_path):
    content = {**prefixed(official, "model."), "criterion.empty_weight": torch.ones(4)}
    left_out = opened({"state_dict": content}, tmp_path, model).origin.left_out
    assert left_out == {"criterion.empty_weight": "not under 'model.'"}


def half(state, prefix, where=lambda i: i % 2):
    return {(prefix if where(i) else "") + name: value for i, (name, value) in enumerate(state.items())}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda s: half(s, "module."), r"the prefix 'module\.' is in front of \d+ names of weights .*, but not of others"),
        (lambda s: half(s, "module.", lambda i: i < 3), r"'module\.' is in front of 3 names"),
        (lambda s: half(s, "module.", lambda i: i > 3), r"'module\.' is in front of .*, but not of others \(such as "),
        (lambda s: prefixed(half(s, "_orig_mod."), "net.") | {"net.x": torch.ones(1)}, "is not part of a"),
        (lambda s: half(s, "_orig_mod."), r"the prefix '_orig_mod\.' is in front"),
        (
            lambda s: {**prefixed(s, "student."), **prefixed(plus(s, 1), "teacher.")},
            r"holds several models \('student', 'teacher'\); save the one",
        ),
        (lambda s: {"best": s, "last": plus(s, 1)}, r"holds several models \('best', 'last'\)"),
        (lambda s: {"ema": s, "ema_2": plus(s, 1), "x": plus(s, 2)}, r"holds several models \('ema', 'ema_2'\)"),
        (lambda s: {**s, "a._orig_mod.b": torch.ones(1), "a.b": torch.ones(1)}, "are the same parameter"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_with_the_names(make, sentence, official, tmp_path):
    torch.save(make(official), tmp_path / "x.pth")
    with pytest.raises(InputError, match=sentence) as caught:
        open_checkpoint(tmp_path / "x.pth", dilation=False)
    assert str(caught.value).startswith(str(tmp_path / "x.pth"))
    assert "\n" not in str(caught.value)


def test_entries_of_another_kind(official, tmp_path):
    torch.save({**official, "input_proj.bias": [1.0]}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"input_proj\.bias is no tensor, but of type list"):
        open_checkpoint(tmp_path / "x.pth", dilation=False)
    torch.save({**official, "class_embed.bias": torch.tensor(1.0)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"class_embed\.bias is a single number"):
        open_checkpoint(tmp_path / "x.pth", dilation=False)


# --- other models ---


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["detr.query_embed.weight", "detr.class_embed.bias", "bbox_attention.k_linear.bias"], "a segmentation model of DETR"),
        (["model.0.conv.weight", "model.22.cv2.0.0.conv.weight"], "a YOLO model"),
        (["decoder.dec_score_head.0.weight", "encoder.input_proj.0.conv.weight"], "an RT-DETR model"),
        (["decoder.pre_bbox_head.layers.0.weight", "decoder.dec_score_head.0.weight"], "a D-FINE or DEIM model"),
        (["query_feat.weight", "refpoint_embed.weight", "class_embed.weight"], "an RF-DETR or LW-DETR model"),
        (["query_embed.weight", "transformer.decoder.layers.0.cross_attn.sampling_offsets.weight"], "deformable attention"),
        (
            ["refpoint_embed.weight", "class_embed.bias", "input_proj.bias", "transformer.decoder.bbox_embed.layers.0.bias"],
            "such as DAB-DETR",
        ),
        (["bbox_head.transformer.encoder.layers.0.norms.0.weight", "bbox_head.fc_cls.weight"], "a DETR of MMDetection 2"),
        (["roi_heads.box_head.fc6.weight", "backbone.body.conv1.weight"], "such as Faster R-CNN"),
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], r"a backbone .*give it as model\.backbone_weights"),
        (["input_projection.weight", "query_position_embeddings.weight"], "a model of transformers without heads"),
        (["base_model.model.class_labels_classifier.lora_A.weight"], r"an adapter \(LoRA\)"),
        (["encoder.weight", "head.weight"], "holds no weights of Conditional DETR or DETR .*'encoder.weight', 'head.weight'"),
    ],
)  # fmt: skip
def test_other_models_are_named(names, what, tmp_path):
    for content in ({name: torch.ones(2) for name in names}, {"model": {name: torch.ones(2) for name in names}}):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(InputError, match=what):
            open_checkpoint(tmp_path / "x.pth", dilation=False)


def test_a_state_dict_of_our_own(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"a model of this library.*Detector\.save_pretrained"):
        open_checkpoint(tmp_path / "x.pth")


def test_shards(folder, model, tmp_path):
    weights = folder / "model.safetensors"
    values = load_file(weights)
    weights.unlink()
    place = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(values)}
    files = sorted(set(place.values()))
    index = folder / "model.safetensors.index.json"

    def write(place=place, held=place):
        index.write_text(json.dumps({"metadata": {}, "weight_map": place}))
        for file in files:
            save_file({name: values[name] for name, each in held.items() if each == file}, folder / file)

    write()
    assert torch.equal(open_checkpoint(folder).model.input_proj.bias, model.input_proj.bias)
    first = next(iter(place))
    for change, sentence in (
        (lambda: write(held={**place, first: files[1]}), f"disagree about {first}"),
        (lambda: write({**place, "more": files[1]}), "disagree about more"),
        (
            lambda: write({**place, first: "../x.safetensors"}),
            r"names \.\./x\.safetensors, which is not a file beside",
        ),
        (lambda: write({**place, first: "/etc/passwd"}), "which is not a file beside"),
        (lambda: write({**place, first: 3}), "has no weight_map"),
        (lambda: index.write_text("{}"), "has no weight_map"),
        (lambda: (write(), (folder / files[1]).unlink()), f"index.json names {files[1]}, which is missing"),
    ):
        change()
        with pytest.raises(InputError, match=sentence):
            open_checkpoint(folder)
    values[first][:] = float("nan")
    write()
    with pytest.raises(InputError, match=f"index.json: {first} holds NaN"):
        open_checkpoint(folder)


# --- backbones ---


def test_backbone_weights_under_keys_and_prefixes(model, tmp_path):
    settings = ModelSettings(backbone=SHAPE, batch_norm="frozen", **SMALL)
    state = {**model.backbone.state_dict(), "fc.weight": torch.ones(3)}
    architecture = Architecture(backbone=SHAPE)
    for content in (
        {"state_dict": prefixed(state, "module.")},
        {"model": {**prefixed(state, "encoder_q."), **prefixed(plus(state, 1), "ema_encoder.")}},
    ):
        torch.save(content, tmp_path / "x.pth")
        backbone = build_model(settings, 2).backbone
        load_backbone_weights(backbone, architecture, tmp_path / "x.pth")
        more = 1 if "model" in content else 0
        assert torch.equal(backbone.conv1.weight, model.backbone.conv1.weight + more)
    for content, sentence in (
        (
            {**prefixed(state, "q."), **prefixed(plus(state, 1), "k.")},
            r"holds several models \('k', 'q'\)|\('q', 'k'\)",
        ),
        ({**state, "layer1.0.bn1.bias": torch.full((16,), float("nan"))}, r"layer1\.0\.bn1\.bias holds NaN"),
        ({"layer1.0.bn1.bias": [1.0]}, r"layer1\.0\.bn1\.bias is no tensor, but of type list"),
        ({}, "must map names to tensors"),
    ):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(InputError, match=sentence):
            load_backbone_weights(build_model(settings, 2).backbone, architecture, tmp_path / "x.pth")
