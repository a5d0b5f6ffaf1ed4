"""Attention maps equal the weights that the model uses, and computing them does not change the model."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conditional_detr import Detector
from conditional_detr.checkpoints.conversion import convert
from conditional_detr.errors import InputError
from conditional_detr.explain.attention_maps import explain, recorded
from conditional_detr.explain.plots import plot_attention_maps, plot_reference_points, plot_self_attention
from conditional_detr.input_size import InputSize
from tests.checkpoints.models import randomized, save_checkpoint, small

DECODERS = pytest.mark.parametrize("decoder", ["conditional", "detr"])
CHOSEN = torch.tensor([7, 0, 3])


def padded_images() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    pixels, mask = torch.randn(2, 3, 96, 160), torch.zeros(2, 96, 160, dtype=torch.bool)
    mask[1, 64:] = mask[1, :, 96:] = True
    pixels[1, :, 64:] = pixels[1, :, :, 96:] = 0
    return pixels, mask


def picture(height: int = 90, width: int = 130) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


@DECODERS
@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_the_model_s_numbers_are_left_alone(decoder, layer):
    model = randomized(small(decoder)).model
    pixels, mask = padded_images()
    before = model(pixels, mask)
    copied, record = recorded(model, layer)
    during = copied(pixels, mask)
    record.maps(0, CHOSEN)
    after = model(pixels, mask)
    for each in (during, after):
        assert torch.equal(each.logits, before.logits)
        assert torch.equal(each.boxes, before.boxes)


@DECODERS
def test_the_model_itself_gets_no_hooks_and_shares_its_parameters(decoder):
    model = randomized(small(decoder)).model
    copied, _ = recorded(model, 0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(a is b for a, b in zip(model.parameters(), copied.parameters(), strict=True))


@DECODERS
@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_weights_times_values_are_the_layer_s_output(decoder, layer):
    """The logits of both parts also add up to the products of queries and keys."""
    model = randomized(small(decoder)).model
    pixels, mask = padded_images()
    copied, record = recorded(model, layer)
    cross = copied.decoder.layers[layer].cross_attention
    outputs = []
    cross.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    copied(pixels, mask)
    every = torch.arange(9)
    query, key, value = record.projected()
    spatial, content = record.logits(every)
    torch.testing.assert_close(
        spatial + content, query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, atol=1e-4, rtol=0
    )
    for image in range(2):
        weights = record.maps(image, every).combined.flatten(2)  # [queries, heads, cells]
        attended = torch.einsum("qhc,hcd->qhd", weights, value[image]).flatten(1)
        torch.testing.assert_close(cross.out_proj(attended), outputs[0][image], atol=1e-5, rtol=0)


@DECODERS
@torch.no_grad()
def test_maps_are_distributions_over_what_is_no_padding(decoder):
    model = randomized(small(decoder)).model
    pixels, mask = padded_images()
    copied, record = recorded(model, 1)
    copied(pixels, mask)
    maps = record.maps(1, CHOSEN)
    assert maps.between_queries.shape == (3, 4, 9)
    for part in (maps.combined, maps.spatial, maps.content):
        assert part.shape == (3, 4, 3, 5)
        assert (part[:, :, 2] == 0).all()
        assert (part[..., 3:] == 0).all()
        torch.testing.assert_close(part.sum((-2, -1)), torch.ones(3, 4))
    torch.testing.assert_close(maps.between_queries.sum(-1), torch.ones(3, 4))


@torch.no_grad()
def test_the_spatial_part_of_the_first_layer_does_not_depend_on_the_image():
    """T = 1 in the first layer, so the spatial part depends only on reference points and positions."""
    model = randomized(small()).model
    found = []
    for _ in range(2):
        copied, record = recorded(model, 0)
        copied(torch.randn(1, 3, 96, 96))
        found.append(record.maps(0, CHOSEN))
    torch.testing.assert_close(found[0].spatial, found[1].spatial)
    assert (found[0].content - found[1].content).abs().max() > 1e-4


@DECODERS
@torch.no_grad()
def test_equal_to_transformers(decoder, tmp_path):
    """Weights of both attentions equal those that transformers reports, for all queries."""
    transformers = pytest.importorskip("transformers")
    saved = randomized(small(decoder))
    save_checkpoint(saved, tmp_path)
    kind = {"conditional": "ConditionalDetr", "detr": "Detr"}[decoder]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of transformers
        theirs = getattr(transformers, f"{kind}ForObjectDetection").from_pretrained(
            tmp_path, attn_implementation="eager"
        )
        pixels, mask = padded_images()
        answer = theirs.eval()(pixels, pixel_mask=(~mask).long(), output_attentions=True)
    for layer in range(2):
        copied, record = recorded(saved.model, layer)
        copied(pixels, mask)
        for image in range(2):
            maps = record.maps(image, torch.arange(9))
            cross = answer.cross_attentions[layer][image].transpose(0, 1)
            torch.testing.assert_close(maps.combined.flatten(2), cross, atol=1e-5, rtol=1e-4)
            between = answer.decoder_attentions[layer][image].transpose(0, 1)
            torch.testing.assert_close(maps.between_queries, between, atol=1e-5, rtol=1e-4)


@DECODERS
def test_every_format_explains_the_same(decoder, tmp_path):
    checkpoint = randomized(small(decoder))
    image = picture()
    expected = explain(Detector(checkpoint), image, layer=1, top=2)
    for to in ("huggingface", "official", "mmdetection"):
        file = tmp_path / (to if to == "huggingface" else f"{to}.pth")
        convert(checkpoint, file, to)
        found = explain(Detector.from_pretrained(file, dilation=False), image, layer=1, top=2)
        assert found.detections.names == expected.detections.names
        torch.testing.assert_close(found.maps.combined, expected.maps.combined)
        torch.testing.assert_close(found.maps.spatial, expected.maps.spatial)


def test_explains_the_detections():
    """Queries are sorted by score, boxes equal those of the detector, and maps have the shape of the image."""
    detector = Detector(randomized(small()))
    image = picture(64, 128)
    explanation = explain(detector, image, top=4)
    assert explanation.layer == 2
    assert explanation.maps.combined.shape == (4, 4, 2, 4)  # stride 32
    scores = explanation.detections.scores
    assert (scores.diff() <= 0).all()
    detections = detector.predict(image, threshold=0.0)
    assert scores[0] == detections.scores[0]
    torch.testing.assert_close(explanation.detections.boxes[0], detections.boxes[0])
    assert explanation.detections.names[0] == detections.names[0]
    torch.testing.assert_close(explanation.query_boxes[explanation.queries], explanation.detections.boxes)
    given = explain(detector, image, queries=[5, 5, 2])
    assert set(given.queries.tolist()) == {5, 2}
    x, y = (explanation.reference_points / torch.tensor([128, 64])).T
    torch.testing.assert_close(torch.stack([x, y], 1), detector.model.decoder.reference_points())


@pytest.mark.parametrize("boxes", ["image", "padded-with-mask"])
def test_maps_of_a_padded_image_are_cropped_to_it(boxes):
    """Every cell that the image covers, even in part, is kept, and the covered part is recorded in cells."""
    size = InputSize((70, 140), "fit", padded=(160, 192), boxes=boxes)
    explanation = explain(Detector(randomized(small(), size=size)), picture(90, 130), top=2)
    assert (explanation.rows, explanation.columns) == (pytest.approx(70 / 32), pytest.approx(101 / 32, abs=0.05))
    maps = explanation.maps
    for part in (maps.combined, maps.spatial, maps.content):
        assert part.shape == (2, 4, 3, 4)
        torch.testing.assert_close(part.sum((-2, -1)), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"layer": 3}, "layers 1 to 2"), ({"layer": 0}, "layers 1 to 2"), ({"queries": [9]}, "queries 0 to 8")],
)
def test_what_does_not_exist_is_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        explain(Detector(randomized(small())), picture(), **wrong)


@DECODERS
def test_pictures(decoder, tmp_path):
    """The page has a row per part and a column per head, and its hottest color is where the map has its weight."""
    explanation = explain(Detector(randomized(small(decoder))), picture(64, 64), top=1)
    corner = torch.zeros_like(explanation.maps.spatial)
    corner[..., 0, 0] = 1.0
    explanation = replace(explanation, maps=replace(explanation.maps, spatial=corner))
    plot_attention_maps(explanation, tmp_path / "maps.png")
    pixels = np.asarray(Image.open(tmp_path / "maps.png").convert("RGB")).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] - pixels[..., 2] > 60) & (pixels[..., 0] > pixels[..., 1] + 60))  # red
    spatial = (rows > len(pixels) / 3) & (rows < len(pixels) * 2 / 3)
    assert spatial.sum() > 100
    heads = np.unique(columns[spatial] * 4 // pixels.shape[1])
    assert heads.tolist() == [0, 1, 2, 3]
    plot_self_attention(explanation, tmp_path / "self.png")
    if decoder == "conditional":
        plot_reference_points(explanation, tmp_path / "points.png")
    for file in tmp_path.iterdir():
        Image.open(file).load()
