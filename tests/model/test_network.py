"""Behavior of the network that reference numbers do not cover."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conditional_detr.architecture import BackboneShape
from conditional_detr.config import ModelSettings
from conditional_detr.model.batch_norm import FrozenBatchNorm2d
from conditional_detr.model.network import build_model
from conditional_detr.structures import Predictions

TINY = ModelSettings(
    backbone=BackboneShape(block="bottleneck", depths=(1, 1), widths=(16, 32), stem_width=8),
    channels=32,
    heads=4,
    feed_forward=64,
    encoder_layers=1,
    decoder_layers=2,
    queries=7,
    dropout=0.0,
    batch_norm="frozen",
)


DECODERS = pytest.mark.parametrize(
    "decoder", [{}, {"decoder": "detr", "classification": "softmax"}], ids=["conditional", "detr"]
)


def build(classes: int = 5, **changes):
    torch.manual_seed(1)
    model = build_model(TINY.model_copy(update=changes), classes)
    nn.init.normal_(model.box_head.layers[-1].weight, std=0.1)  # 0 as published, which would hide differences
    return model.eval()


def same(a: Predictions, b: Predictions, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a.logits, b.logits, atol=atol, rtol=0)
    torch.testing.assert_close(a.boxes, b.boxes, atol=atol, rtol=0)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
@pytest.mark.parametrize("dilation", [False, True])
@torch.no_grad()
def test_stride_of_every_backbone(name, dilation):
    model = build_model(TINY.model_copy(update={"backbone": name, "dilation": dilation}), 3)
    stride = 16 if dilation else 32
    assert model.backbone(torch.zeros(1, 3, 96, 64)).shape[-2:] == (96 // stride, 64 // stride)


@torch.no_grad()
def test_mask_without_padding_changes_nothing():
    model, pixels = build(), torch.randn(2, 3, 40, 56)
    same(model(pixels), model(pixels, torch.zeros(2, 40, 56, dtype=torch.bool)))


@DECODERS
@torch.no_grad()
def test_batch_equals_single(decoder):
    model, pixels = build(**decoder), torch.randn(3, 3, 40, 56)
    together = model(pixels)
    for i in range(3):
        same(model(pixels[i : i + 1]), Predictions(together.logits[:, i : i + 1], together.boxes[:, i : i + 1]))


@DECODERS
@torch.no_grad()
def test_content_of_padded_cells_is_ignored(decoder):
    """Padding beyond the receptive field of the convolutions has no influence."""
    model = build(**decoder)
    features = torch.randn(1, 32, 5, 6)
    mask = torch.zeros(1, 40, 48, dtype=torch.bool)
    mask[:, :, 24:] = True

    class Fixed(nn.Module):
        def forward(self, pixels):
            return features

    model.backbone = Fixed()
    before = model(torch.zeros(1, 3, 40, 48), mask)
    features[..., 3:] = 100.0
    same(before, model(torch.zeros(1, 3, 40, 48), mask))


@DECODERS
@pytest.mark.parametrize("layers", [(0, 1), (0, 2), (2, 1)])
def test_every_trained_parameter_gets_a_gradient(layers, decoder):
    """Also without an encoder and with one decoder layer. Distributed training would fail otherwise."""
    encoder_layers, decoder_layers = layers
    model = build(encoder_layers=encoder_layers, decoder_layers=decoder_layers, **decoder).train()
    predictions = model(torch.randn(1, 3, 32, 32))
    (predictions.logits.sum() + predictions.boxes.sum()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@DECODERS
def test_gradient_checkpointing_changes_no_gradient(decoder):
    pixels = torch.randn(2, 3, 40, 56)
    gradients = []
    for enabled in (False, True):
        model = build(**decoder).train()
        model.set_gradient_checkpointing(enabled)
        predictions = model(pixels)
        (predictions.logits.square().sum() + predictions.boxes.square().sum()).backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_groups_of_queries_do_not_see_each_other():
    """In training the first group predicts what it would predict alone; in evaluation only the first group is used."""
    pixels = torch.randn(2, 3, 32, 32)
    alone = build()
    grouped = build()
    grouped.decoder.train_groups(3)
    same(alone(pixels), grouped(pixels), atol=0)
    predictions = grouped.train()(pixels)
    assert predictions.boxes.shape == (2, 2, 3 * 7, 4)
    first = Predictions(*(part.unflatten(1, (2, 3))[:, :, 0] for part in predictions.by_group(3)))
    same(first, alone.train()(pixels))


@torch.no_grad()
def test_untrained_model_is_as_published():
    """Every class has the prior score. Every box is centered on its reference point and has half the image's size."""
    model = build_model(TINY, 4).eval()
    nn.init.zeros_(model.class_head.weight)
    predictions = model(torch.randn(1, 3, 32, 32))
    torch.testing.assert_close(predictions.logits.sigmoid(), torch.full_like(predictions.logits, 0.01))
    points = model.decoder.reference_points()
    torch.testing.assert_close(predictions.boxes[-1, 0, :, :2], points, atol=1e-5, rtol=0)
    assert (predictions.boxes[..., 2:] == 0.5).all()
    packed = model.encoder.layers[0].self_attention.in_proj.weight
    assert packed.abs().max() <= math.sqrt(6 / (32 + 96))  # Xavier of the packed matrix, not of its three parts


def test_frozen_and_trained_parts():
    frozen = build_model(TINY, 3)
    frozen.backbone.freeze(1)
    names = {n for n, p in frozen.backbone.named_parameters() if not p.requires_grad}
    assert names
    assert all(name.startswith(("conv1", "layer1")) for name in names)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    trained = build_model(TINY.model_copy(update={"batch_norm": "trained"}), 3)
    trained.backbone.freeze(-1)
    assert all(p.requires_grad for p in trained.parameters())
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in trained.modules())


@torch.no_grad()
def test_half_precision_keeps_boxes_precise():
    """Under bfloat16 autocast, heads and reference points stay in float32, so that boxes do not snap to a grid."""
    model, pixels = build(), torch.randn(1, 3, 40, 56)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = model(pixels)
    assert predictions.boxes.dtype == predictions.logits.dtype == torch.float32
    assert (predictions.boxes - predictions.boxes.bfloat16().float()).abs().max() > 0


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
@torch.no_grad()
def test_any_image_size_works(height, width):
    predictions = build()(torch.zeros(1, 3, height, width))
    assert predictions.boxes.isfinite().all()
    assert predictions.logits.shape == (2, 1, 7, 5)
