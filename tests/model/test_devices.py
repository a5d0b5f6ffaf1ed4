"""Networks create no tensor on another device than their input's, which a GPU would refuse.

The meta device stands for a GPU: torch raises an error when a tensor on it meets one on the CPU.
"""

import pytest
import torch

from conditional_detr.model.fast import FastDETR
from conditional_detr.model.network import DETR
from tests.checkpoints.models import randomized, small

LITE = "efficientnet-lite0-stride16"


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("decoder", "backbone"), [("conditional", "resnet18"), ("detr", "resnet18"), ("conditional", LITE)]
)
@torch.no_grad()
def test_all_tensors_are_on_the_device_of_the_input(decoder, backbone, masked):
    model: DETR = randomized(small(decoder, backbone)).model.to("meta")
    pixels = torch.empty(2, 3, 96, 128, device="meta")
    mask = torch.zeros(2, 96, 128, dtype=torch.bool, device="meta") if masked else None
    for network in (model, FastDETR(model).network):
        found = network(pixels, mask)
        assert found.logits.is_meta
        assert found.boxes.is_meta


def test_the_meta_device_notices_tensors_elsewhere():
    with pytest.raises(RuntimeError):
        torch.empty(2, device="meta") + torch.ones(2)
