"""Convolutions in transformed tiles against torch's direct ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from conditional_detr.model import winograd
from conditional_detr.model.backbone import Bottleneck, FrozenBatchNorm2d
from conditional_detr.model.inference import FusedConvolution

SIZES = [(1, 1), (4, 4), (5, 7), (9, 12), (2, 17)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("at_once", [2**22, 1], ids=["together", "image by image"])
def test_convolution_and_gradients(size, at_once, monkeypatch):
    """In double precision, where rounding hides nothing."""
    monkeypatch.setattr(winograd, "_AT_ONCE", at_once)
    monkeypatch.setattr(winograd, "_WEIGHT", winograd._WEIGHT.mul(24).round().double() / 24)
    torch.manual_seed(0)
    x = torch.randn(3, 5, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(7, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    direct = functional.conv2d(x, weight, padding=1)
    gradient = torch.randn_like(direct)
    of_x, of_weight = torch.autograd.grad(direct, (x, weight), gradient)
    with torch.no_grad():
        torch.testing.assert_close(winograd.convolution(x, weight), direct)
        torch.testing.assert_close(winograd.input_gradient(gradient, weight), of_x)
        torch.testing.assert_close(winograd.weight_gradient(x, gradient), of_weight)


def test_rounding():
    """Of sums over as many channels as there are: a few units in the fifth place, of values of up to five."""
    x, weight = torch.randn(1, 256, 20, 23), torch.randn(256, 256, 3, 3) / 48
    exact = functional.conv2d(x.double(), weight.double(), padding=1)
    torch.testing.assert_close(winograd.convolution(x, weight).double(), exact, atol=5e-5, rtol=0)


def test_where_it_is_used():
    one, x, weight = (1, 1), torch.empty(1, 128, 8, 8), torch.empty(256, 128, 3, 3)
    assert winograd.pays(x, weight, one, one, one)
    assert not winograd.pays(x.double(), weight.double(), one, one, one)
    assert not winograd.pays(x.to("meta"), weight.to("meta"), one, one, one)
    assert not winograd.pays(x, weight, (2, 2), one, one)
    assert not winograd.pays(x, weight, one, (2, 2), (2, 2))
    for other in (weight[:, :, :1, :1], weight[:64], torch.empty(512, 128, 3, 3)):
        assert not winograd.pays(x, other, one, one, one)


def test_in_a_residual_block(monkeypatch):
    """Training and the fast path use it where it pays, and compute what they computed without."""
    torch.manual_seed(0)
    block = Bottleneck(64, 512, 1, 1, FrozenBatchNorm2d)
    nn.init.uniform_(block.bn2.weight, 0.5, 1.5)
    nn.init.normal_(block.bn2.bias)
    x = torch.randn(2, 64, 9, 10).contiguous(memory_format=torch.channels_last).requires_grad_()
    calls = []
    used = winograd.convolution

    def counted(*arguments):
        calls.append(1)
        return used(*arguments)

    monkeypatch.setattr(winograd, "convolution", counted)

    def everything():
        out = block(x)
        with torch.no_grad():
            fused = FusedConvolution(block.conv2, block.bn2)(x.new_ones(1, 128, 6, 6))
        return [out, fused, *torch.autograd.grad(out.square().sum(), [x, *block.parameters()])]

    found = everything()
    assert len(calls) == 3  # forward, backward and the fast path
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    for ours, direct in zip(found, everything(), strict=True):
        torch.testing.assert_close(ours, direct, rtol=1e-4, atol=1e-4 * direct.abs().max().item())
    assert len(calls) == 3
