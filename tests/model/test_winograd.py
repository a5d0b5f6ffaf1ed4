"""Winograd convolutions against torch's direct ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from conditional_detr.model import winograd
from conditional_detr.model.backbones.resnet import Bottleneck
from conditional_detr.model.batch_norm import FrozenBatchNorm2d, FusedConvolution

SIZES = [(1, 1), (4, 4), (5, 7), (9, 12), (2, 17)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("at_once", [2**22, 1], ids=["together", "image by image"])
def test_convolution_and_gradients(size, at_once, monkeypatch):
    """In double precision, where rounding can't hide errors."""
    monkeypatch.setattr(winograd, "_AT_ONCE", at_once)
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
    """Sums over the largest number of channels: errors of a few units in the fifth decimal, for values up to five."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 20, 23), torch.randn(256, 256, 3, 3) / 48
    exact = functional.conv2d(x.double(), weight.double(), padding=1)
    torch.testing.assert_close(winograd.convolution(x, weight).double(), exact, atol=5e-5, rtol=0)


def test_where_it_is_used():
    one, x, weight = (1, 1), torch.empty(1, 128, 32, 32), torch.empty(256, 128, 3, 3)
    assert winograd.pays(x, weight, one, one, one)
    assert not winograd.pays(x[:, :, 1:], weight, one, one, one)
    assert not winograd.pays(x.double(), weight.double(), one, one, one)
    assert not winograd.pays(x.to("meta"), weight.to("meta"), one, one, one)
    assert not winograd.pays(x, weight, (2, 2), one, one)
    assert not winograd.pays(x, weight, one, (2, 2), (2, 2))
    for other in (weight[:, :, :1, :1], weight[:64], torch.empty(512, 128, 3, 3)):
        assert not winograd.pays(x, other, one, one, one)
    torch.set_float32_matmul_precision("medium")
    try:
        assert not winograd.pays(x, weight, one, one, one)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_not_in_a_graph():
    """An exported network uses torch's convolutions and accepts images of any size."""
    block = Bottleneck(inputs=512, outputs=512, stride=1, dilation=1, norm=FrozenBatchNorm2d).eval()
    sizes = {2: torch.export.Dim("height", min=16), 3: torch.export.Dim("width", min=16)}
    x = torch.randn(1, 512, 40, 32)
    exported = torch.export.export(block, (x,), dynamic_shapes=(sizes,)).module()
    torch.testing.assert_close(exported(x[..., :30]), block(x[..., :30]), atol=1e-4, rtol=1e-4)


def test_second_derivative(monkeypatch):
    torch.manual_seed(0)
    block = Bottleneck(inputs=512, outputs=512, stride=1, dilation=1, norm=FrozenBatchNorm2d)
    x = torch.randn(1, 512, 32, 32, requires_grad=True)

    def second():
        (first,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    found = second()
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    torch.testing.assert_close(found, direct := second(), rtol=1e-3, atol=1e-4 * direct.abs().max().item())


@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_in_a_residual_block(frozen, monkeypatch):
    """Training and the fast path use it where it is faster, with the same results."""
    torch.manual_seed(0)
    block = Bottleneck(inputs=64, outputs=512, stride=1, dilation=1, norm=FrozenBatchNorm2d)
    nn.init.uniform_(block.bn2.weight, 0.5, 1.5)
    nn.init.normal_(block.bn2.bias)
    block.conv2.requires_grad_(not frozen)
    trained = [p for p in block.parameters() if p.requires_grad]
    x = torch.randn(2, 64, 26, 20).contiguous(memory_format=torch.channels_last).requires_grad_()
    calls = []
    used = winograd.convolution

    def counted(*arguments):
        calls.append(1)
        return used(*arguments)

    monkeypatch.setattr(winograd, "convolution", counted)

    def everything():
        out = block(x)
        with torch.no_grad():
            one = x.new_ones(1, 128, 30, 36)
            fused = FusedConvolution(block.conv2, block.bn2)(one, shortcut=one.clone())
        return [out, fused, *torch.autograd.grad(out.square().sum(), [x, *trained])]

    found = everything()
    assert len(calls) == 3  # forward, backward and the fast path
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    for ours, direct in zip(found, everything(), strict=True):
        torch.testing.assert_close(ours, direct, rtol=1e-4, atol=1e-4 * direct.abs().max().item())
    assert len(calls) == 3
