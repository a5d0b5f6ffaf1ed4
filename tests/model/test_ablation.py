"""Ablated parts of the decoder are neutral and stay so in training."""

import torch

from conditional_detr import Detector
from conditional_detr.model.ablation import ablate
from conditional_detr.model.network import build_model
from conditional_detr.training import starting
from tests.training.test_loop import changed


@torch.no_grad()
def test_each_part_alone(tiny_settings):
    content = torch.randn(2, 5, tiny_settings.channels)
    for part in ("query_scale", "reference_points", "spatial_projection"):
        decoder = build_model(tiny_settings, 3).decoder
        ablate(decoder, [part])
        projections = [layer.cross_attention.query_spatial for layer in decoder.layers]
        is_identity = {
            "query_scale": bool((decoder.query_scale(content) == 1).all()),
            "reference_points": bool((decoder.reference_points() == 0.5).all()),
            "spatial_projection": all(torch.equal(each(content), content) for each in projections),
        }
        assert [name for name, held in is_identity.items() if held] == [part]
        trains = {name for name, parameter in decoder.named_parameters() if parameter.requires_grad}
        frozen = {name for name, _ in decoder.named_parameters()} - trains
        named = {
            "query_scale": "query_scale",
            "reference_points": "reference_head",
            "spatial_projection": "query_spatial",
        }
        assert frozen
        assert all(named[part] in name for name in frozen)


def test_what_is_ablated_does_not_learn(quick_run):
    parts = ("query_scale", "reference_points", "spatial_projection")
    run = starting.train(changed(quick_run, model={"ablate": parts}, train={"max_steps": 3})).run
    decoder = Detector.from_pretrained(run.last_model).model.decoder
    assert (decoder.reference_points() == 0.5).all()
    assert (decoder.query_scale(torch.randn(4, 64)) == 1).all()
    assert torch.equal(decoder.layers[1].cross_attention.query_spatial.weight, torch.eye(64))
