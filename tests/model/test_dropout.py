"""Dropout: rate, independence and gradients."""

import pytest
import torch
from torch.nn import functional

from conditional_detr.model.attention import attend
from conditional_detr.model.dropout import Dropout


def seeded(function):
    torch.manual_seed(3)
    return function()


def test_share_and_scale():
    x = torch.ones(1000, 1001)
    out = seeded(lambda: Dropout(0.1)(x))
    assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=1e-3)
    assert out.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
    assert torch.equal(out, seeded(lambda: Dropout(0.1)(x)))
    assert not torch.equal(out, Dropout(0.1)(x))
    # Neighbors, which share a draw, are dropped independently.
    dropped = (out.flatten()[:-1].reshape(-1, 4) if out.numel() % 4 else out.reshape(-1, 4)) == 0
    assert (dropped[:, 0] & dropped[:, 1]).float().mean().item() == pytest.approx(0.01, abs=1e-3)


def test_nothing_in_evaluation_or_without_probability():
    x = torch.randn(5, 7)
    for module in (Dropout(0.3).eval(), Dropout(0.0)):
        assert torch.equal(module(x), x)
        assert torch.equal(module.after_relu(x), torch.relu(x))
        assert torch.equal(module.product(x, x.T), x @ x.T)


def test_gradients_are_those_of_the_parts():
    """``after_relu`` and ``product`` save less than autograd would. The same seed shows what they drop."""
    dropout = Dropout(0.4)
    x = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    y = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    kept = seeded(lambda: dropout(torch.ones_like(x)))
    relu = seeded(lambda: dropout.after_relu(x))
    product = seeded(lambda: dropout.product(x, y))
    for ours, slow in ((relu, torch.relu(x) * kept), (product, (x * kept) @ y)):
        torch.testing.assert_close(ours, slow)
        weights = torch.randn_like(slow)
        inputs = [x] if slow.shape == x.shape else [x, y]
        found = torch.autograd.grad((ours * weights).sum(), inputs)
        for a, b in zip(found, torch.autograd.grad((slow * weights).sum(), inputs), strict=True):
            torch.testing.assert_close(a, b)


def test_attention_drops_weights_not_outputs():
    """With one key per head and values of one, the output is the attention weight, dropped or scaled."""
    dropout = Dropout(0.25)
    query, key = torch.randn(3, 8, 500, 4), torch.randn(3, 8, 1, 4)
    out = seeded(lambda: attend(query, key, torch.ones(3, 8, 1, 2), None, dropout))
    assert out.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_padding_gets_no_weight_with_dropout():
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, 4:] = True
    query, key, value = (torch.randn(2, 1, 6, 4) for _ in range(3))
    value[0, :, 4:] = torch.inf
    assert not attend(query, key, value.nan_to_num(posinf=1e30), mask, Dropout(0.1)).abs().max() > 1e3


def test_deeper_keys_than_values():
    """Keys as deep as in conditional cross-attention, against the definition of attention."""
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    weights = (query @ key.transpose(-1, -2) * 8**-0.5).softmax(-1)
    torch.testing.assert_close(attend(query, key, value), (weights @ value).transpose(1, 2).flatten(2))


def test_in_mixed_precision():
    query, key, value = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(query, key, value, None, Dropout(0.1))
        out = out + functional.linear(Dropout(0.1).after_relu(out), torch.ones(8, 8))
    out.float().sum().backward()
    assert query.grad.dtype == torch.float32
    assert query.grad.isfinite().all()
