"""The fast path computes what the plain network does, with no more operations than expected."""

import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from conditional_detr.architecture import BackboneShape
from conditional_detr.model.batch_norm import FrozenBatchNorm2d
from conditional_detr.model.fast import FastDETR
from tests.model.test_network import build, same

BASIC = BackboneShape(block="basic", depths=(1, 1), widths=(8, 16), stem_width=8)


def with_statistics(model):
    """Fill batch norm with values that are not the identity."""
    for module in model.modules():
        if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": BASIC, "batch_norm": "trained"},
        {"dilation": True},
        {"decoder": "detr", "classification": "softmax"},
    ],
    ids=["bottleneck", "basic blocks, trained batch norm", "dc5", "detr"],
)
@torch.no_grad()
def test_fast_path_equals_the_plain_one(changes, monkeypatch):
    model = with_statistics(build(**changes))
    pixels, mask = torch.randn(2, 3, 70, 90), torch.zeros(2, 70, 90, dtype=torch.bool)
    mask[1, 50:] = True
    for padding in (None, mask):
        same(FastDETR(model)(pixels, padding), model(pixels, padding), 1e-5)
    monkeypatch.setattr("conditional_detr.model.batch_norm._FUSED", False)  # as in a torch without these operators
    same(FastDETR(model)(pixels), model(pixels), 1e-5)


def test_the_model_stays_as_it_was():
    model = with_statistics(build())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = FastDETR(model)
    fast(torch.randn(1, 3, 64, 64))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # Evaluation restores the mode of a model, and dropout modules are shared.
    assert not any(module.training for module in (*fast.modules(), *model.modules()))
    own = {p.data_ptr() for p in model.state_dict().values()}
    assert {p.data_ptr() for p in fast.parameters()} <= own  # shared
    added = sum(b.numel() for b in fast.buffers() if b.data_ptr() not in own)
    assert added < 0.1 * sum(p.numel() for p in model.backbone.parameters())  # scales and biases, no second backbone


@torch.no_grad()
def test_constant_batch_norm_is_what_torch_computes():
    """Frozen and trained batch norm, against torch's module after the same convolution."""
    for kind in ("frozen", "trained"):
        model = with_statistics(build(batch_norm=kind))
        norm = nn.BatchNorm2d(8).eval()
        norm.load_state_dict(model.backbone.bn1.state_dict(), strict=False)
        pixels = torch.randn(1, 3, 32, 48)
        seen = []
        handle = model.backbone.maxpool.register_forward_pre_hook(
            lambda _, arguments, seen=seen: seen.append(arguments[0])
        )
        model.backbone(pixels)
        handle.remove()
        torch.testing.assert_close(seen[0], torch.relu(norm(model.backbone.conv1(pixels))))


def test_gradients_through_frozen_batch_norm():
    """Gradients equal those of autograd for convolution, scale and shift as separate operations."""
    model = with_statistics(build()).double()
    block = model.backbone.layer2[0]
    x = torch.randn(2, 16, 9, 11, dtype=torch.float64, requires_grad=True)

    def normalized(x, convolution, norm):
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return convolution(x) * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]

    inner = torch.relu(normalized(x, block.conv1, block.bn1))
    inner = torch.relu(normalized(inner, block.conv2, block.bn2))
    slow = torch.relu(normalized(inner, block.conv3, block.bn3) + normalized(x, *block.downsample))
    wanted = [x, *block.parameters()]
    weights = torch.randn_like(slow)
    torch.testing.assert_close(block(x), slow)
    expected = torch.autograd.grad((slow * weights).sum(), wanted)
    for ours, theirs in zip(torch.autograd.grad((block(x) * weights).sum(), wanted), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


class Operations(TorchDispatchMode):
    """Count the operations that run."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def test_work_of_a_prediction():
    """Count operations instead of measuring time: more of them would slow every prediction."""
    model = build()
    pixels = torch.randn(1, 3, 64, 96)
    with Operations() as plain:
        model(pixels)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    linear = {  # one encoder layer, two decoder layers, query positions and heads
        "encoder: q and k, v, out, feed-forward": 5,
        "self-attention, 6 each": 12,
        "cross-attention, 6 each and the first one's query position": 13,
        "feed-forward": 4,
        "query scale, from the second layer on": 2,
        "reference points, for the decoder and for the boxes": 4,
        "heads": 4,
    }
    assert plain.counts["convolution"] == convolutions
    assert plain.counts["addmm"] == sum(linear.values())
    assert plain.counts["_scaled_dot_product_flash_attention_for_cpu"] == 1 + 2 * 2  # attention weights are not stored
    assert plain.counts["native_batch_norm"] + plain.counts["_native_batch_norm_legit_no_training"] == 0
    assert plain.counts["bitwise_not"] == plain.counts["upsample_nearest2d"] == 0  # without a padding mask
    with Operations() as fast:
        FastDETR(model)(pixels)
    assert sum(count for name, count in fast.counts.items() if "conv" in name) == convolutions
    blocks = 2
    assert fast.counts["add_"] == 0
    assert plain.counts["add_"] == blocks


def test_compiled():
    """Two sizes suffice to serve any size.

    Runs in a subprocess without shape checks, which torch.compile can't trace.
    """
    code = """
import torch
from torch._dynamo.utils import counters
from tests.model.test_fast import BASIC, with_statistics
from tests.model.test_network import build
from conditional_detr.model.fast import FastDETR
model = with_statistics(build(decoder_layers=1, encoder_layers=0, backbone=BASIC))
fast = FastDETR(model, compiled=True)
graphs = []
with torch.no_grad():
    for size in [(64, 96), (96, 64), (80, 128), (128, 80), (64, 64), (112, 96)]:
        pixels = torch.randn(1, 3, *size)
        for ours, plain in zip(fast(pixels), model(pixels)):
            torch.testing.assert_close(ours, plain, atol=1e-4, rtol=0)
        graphs.append(counters["stats"]["unique_graphs"])
assert graphs[0] > 0 and graphs[2] == graphs[-1], graphs
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
