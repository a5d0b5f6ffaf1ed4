"""``Detector`` takes images of any kind and returns boxes in their pixels."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conditional_detr import Categories, Detector, ImageError, InputError, SettingsError
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.explain.attention_maps import explain
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.inference.runtimes.torch import TorchRuntime
from conditional_detr.input_size import InputSize
from conditional_detr.model.network import build_model
from conditional_detr.record import ModelRecord, Thresholds
from tests.conftest import SHARED, needs_shared


@pytest.fixture
def detector(tiny_model, tiny_settings) -> Detector:
    nn.init.normal_(tiny_model.box_head.layers[-1].weight, std=0.1)
    categories = Categories((7, 0, 90), ("x", "y", "z"))
    return Detector(
        Checkpoint(tiny_model, ModelRecord(tiny_settings.architecture(), categories, InputSize((96, 160)))),
        device="cpu",
    )


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def test_kinds_of_input_agree(detector, image, tmp_path):
    image.save(tmp_path / "x.png")
    results = [
        detector.predict(each, threshold=0.0)
        for each in (image, np.asarray(image), tmp_path / "x.png", str(tmp_path / "x.png"))
    ]
    for found in results:
        assert torch.equal(found.boxes, results[0].boxes)
        assert torch.equal(found.scores, results[0].scores)


def test_results_are_ordinary_tensors(detector, image):
    found = detector.predict(image, threshold=0.0)
    found.boxes.clamp_(min=0)
    found.scores.mul_(0.5)
    found.labels.add_(1)
    assert not any(each.is_inference() for each in (found.boxes, found.scores, found.labels))


def test_many_threads_predict_and_explain_at_once(detector, image):
    """Results equal those of sequential calls, and no hook remains on the model."""
    images = [image.crop((0, 0, 90 - 2 * i, 60)) for i in range(6)]
    expected = [detector.predict(each, threshold=0.0) for each in images]
    maps = [explain(detector, each).maps for each in images]

    def predict(i: int) -> None:
        found = detector.predict(images[i % 6], threshold=0.0)
        torch.testing.assert_close(found.scores, expected[i % 6].scores, atol=1e-6, rtol=0)

    def look(i: int) -> None:
        torch.testing.assert_close(explain(detector, images[i % 6]).maps.combined, maps[i % 6].combined)

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(look if i % 3 == 0 else predict, i) for i in range(60)]
    for each in done:
        each.result()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in detector.model.modules())


def test_automatic_thresholds_are_those_of_the_record(detector, image):
    everything = detector.predict(image, threshold=0.0)
    scores = {id_: sorted(each.score for each in everything if each.label == id_) for id_ in detector.categories.ids}
    middle = {id_: scores[id_][len(scores[id_]) // 2] for id_ in (7, 90)}
    with pytest.raises(SettingsError, match="records no best thresholds"):
        detector.predict(image, "auto")
    record = replace(detector.record, thresholds=Thresholds(1.0, (middle[7], None, middle[90])))
    measured = Detector(replace(detector.checkpoint, record=record), device="cpu")
    found = measured.predict(image, "auto")
    assert [(each.label, each.score) for each in found] == [
        (each.label, each.score) for each in everything if each.label != 0 and each.score >= middle[each.label]
    ]
    assert {each.label for each in found} == {7, 90}


@pytest.mark.parametrize("threshold", [-0.1, 1.5, 50.0, float("nan")])
def test_thresholds_outside_of_scores_are_refused(detector, image, threshold):
    with pytest.raises(SettingsError, match=f"threshold is {threshold!r}; scores are in 0..1"):
        detector.predict(image, threshold)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batches_of_nothing_are_refused(detector, image, batch_size):
    with pytest.raises(SettingsError, match=r"batch_size is .*; give a whole number from 1"):
        detector.predict([image], batch_size=batch_size)


@pytest.mark.parametrize("device", ["cuda:77", "nonsense", "meta", "xpu"])
def test_a_device_that_is_not_there_is_refused(detector, device):
    with pytest.raises(SettingsError, match=r"device .*; available: cpu"):
        Detector(detector.checkpoint, device)


def test_what_is_no_image_is_refused_with_its_place_in_the_list(detector, image):
    with pytest.raises(ImageError, match=r"images\[2\] is of type NoneType; give a path"):
        detector.predict([image, image, None])
    with pytest.raises(ImageError, match="of type int; give a path"):
        detector.predict(7)
    with pytest.raises(SettingsError, match="give a list, or call predict"):
        detector.stream("x.jpg")


def test_repr_says_what_runs(detector):
    assert repr(detector) == "Detector(ConditionalDETR, ResNet, 3 categories, runs with torch on cpu)"
    assert "torch, optimized on cpu" in repr(detector.optimize())


def test_a_list_gives_a_list(detector, image):
    found = detector.predict([image, image.rotate(90, expand=True)], threshold=0.0)
    assert [type(each).__name__ for each in found] == ["Detections"] * 2
    assert detector.predict([], threshold=0.0) == []


def test_boxes_are_in_pixels_of_the_image_as_given(detector, image):
    """An image scaled to twice its size gives boxes twice as large, except for the effects of resampling."""
    small = detector.predict(image, threshold=0.0)
    large = detector.predict(image.resize((180, 120), Image.Resampling.NEAREST), threshold=0.0)
    by_score = small.scores[0].item(), large.scores[0].item()
    assert by_score[0] == pytest.approx(by_score[1], abs=0.05)
    assert large.boxes[:, 2].max() == pytest.approx(2 * small.boxes[:, 2].max().item(), rel=0.1)


def test_scores_descend_and_respect_the_threshold(detector, image):
    everything = detector.predict(image, threshold=0.0)
    assert len(everything) == 60
    assert (everything.scores.diff() <= 0).all()
    middle = everything.scores[30].item()
    confident = detector.predict(image, threshold=middle)
    assert len(confident) >= 31
    assert (confident.scores >= middle).all()
    assert set(everything.labels.tolist()) <= {7, 0, 90}
    assert [detector.categories.name_of(label) for label in everything.labels.tolist()] == everything.names


def test_batches_of_one_size_change_nothing(detector, image):
    images = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image]
    single = detector.predict(images, threshold=0.0)
    batched = detector.predict(images, threshold=0.0, batch_size=2)
    for a, b in zip(single, batched, strict=True):
        torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)


def test_saved_and_opened_is_the_same(detector, image, tmp_path):
    detector.save_pretrained(tmp_path / "x")
    opened = Detector.from_pretrained(tmp_path / "x")
    a, b = (each.predict(image, threshold=0.0) for each in (detector, opened))
    torch.testing.assert_close(a.scores, b.scores, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.boxes, b.boxes, atol=1e-3, rtol=0)
    assert opened.categories == detector.categories


def test_wrong_sources_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        Detector.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds neither config\.json nor model/config\.json"):
        Detector.from_pretrained(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(InputError, match="has no checkpoint yet"):
        Detector.from_pretrained(tmp_path)


def test_as_many_objects_as_queries(tiny_settings, image):
    """The number of detections is not limited to the 100 of COCO."""
    settings = tiny_settings.model_copy(update={"queries": 150})
    checkpoint = Checkpoint(
        build_model(settings, 1), ModelRecord(settings.architecture(), Categories((1,), ("x",)), InputSize((96, 160)))
    )
    assert len(Detector(checkpoint, device="cpu").predict(image, threshold=0.0)) == 150


@needs_shared("odd-images/manifest.json")
@pytest.mark.parametrize("name", ["one_px.png", "wide_8000x20.jpg", "tall_20x4000.jpg", "animated.gif"])
def test_odd_sizes(detector, name):
    found = detector.predict(SHARED / "odd-images" / name, threshold=0.0)
    assert found.boxes.isfinite().all()
    assert len(found) == 60


def test_optimize_changes_nothing_but_time(detector, image):
    plain = detector.predict(image, threshold=0.0)
    fast = detector.optimize().predict(image, threshold=0.0)
    torch.testing.assert_close(fast.scores, plain.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.boxes, plain.boxes, atol=1e-3, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_stream_gives_every_image_its_place(detector, image, tmp_path, batch_size):
    """Unusable images keep their place too, and only a few images are read ahead."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    taken = []

    def images():
        for i in range(10_000):
            taken.append(i)
            yield broken if i % 4 == 1 else image.crop((0, 0, 90 - i, 60))

    found = list(islice(detector.stream(images(), 0.0, batch_size=batch_size), 9))
    assert len(taken) < 12 + 6 * batch_size
    for i, each in enumerate(found):
        if i % 4 == 1:
            assert isinstance(each, InputError)
            assert str(broken) in str(each)
        else:
            assert each.image.width == 90 - i
            if batch_size == 1:
                alone = detector.predict(image.crop((0, 0, 90 - i, 60)), threshold=0.0)
                assert torch.equal(each.detections.boxes, alone.boxes)


def test_stream_opens_images_while_the_model_works(detector, image, monkeypatch):
    opened = []
    plain = detector._open
    monkeypatch.setattr(detector, "_open", lambda each: opened.append(each) or plain(each))
    seen = []

    class Slow(TorchRuntime):
        def __call__(self, pixels, padding_mask=None):
            time.sleep(0.1)
            seen.append(len(opened))
            return super().__call__(pixels, padding_mask)

    monkeypatch.setattr(detector, "pipeline", Pipeline(detector.record, Slow(detector.model)))
    list(detector.stream([image] * 4))
    assert seen[0] >= 2  # opened when the network has computed the first image


def test_sizes_that_would_take_all_memory_are_refused(detector):
    with pytest.raises(SettingsError, match="sides: height x width must be from 1 to 33554432 pixels"):
        detector.set_sides((100_000, 100_000))
    assert detector.set_sides((4096, 4096)).record.input_size.sides == (4096, 4096)


def test_a_list_names_its_image_of_extreme_proportions(detector, image):
    with pytest.raises(ImageError, match=r"images\[1\] is 1 x 20000 pixels"):
        detector.predict([image, Image.new("L", (1, 20_000))])


def test_another_size_keeps_the_rule(detector, image):
    """What ``cdetr evaluate data.eval_short_side=...`` does: nothing of the input size but its sides changes."""
    size = InputSize((96, 160), "fit", padded=(128, 160), boxes="padded-with-mask")
    record = ModelRecord(detector.record.architecture, detector.categories, size)
    padded = Detector(Checkpoint(detector.model, record), device="cpu").set_sides((64, 100))
    assert padded.record.input_size == InputSize((64, 100), "fit", padded=(128, 160), boxes="padded-with-mask")
    assert padded.checkpoint.input_size == padded.record.input_size
    assert len(padded.predict(image, threshold=0.0)) == 60


@pytest.mark.parametrize("batch_size", [1, 2])
def test_images_computed_at_once_are_those_computed_one_by_one(detector, image, batch_size):
    threads = torch.get_num_threads()
    images = [image.crop((i, 0, 90, 60)) if batch_size == 1 else image.rotate(i) for i in range(9)]
    alone = [detector.predict(each, threshold=0.0) for each in images]
    torch.set_num_threads(3)
    try:
        found = detector.predict(images, threshold=0.0, batch_size=batch_size)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(alone, found, strict=True):
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
