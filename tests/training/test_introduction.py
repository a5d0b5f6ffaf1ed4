"""Before its first step, a run shows the images as the network sees them, and says for how long there are mosaics."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from conditional_detr.errors import InputError
from conditional_detr.runs import RunFolder
from conditional_detr.training import introduction, starting
from conditional_detr.training.report import Reporter
from conditional_detr.training.setup import make_accelerator, set_up
from tests.training.test_loop import StopsAt, changed, metrics, warnings_in

EVERYTHING = {"mosaic": 0.5, "scale_jitter": 0.5, "vertical_flip": 0.5, "quarter_turns": 0.75, "color_jitter": 0.5}


@pytest.fixture
def augmented_run(quick_run):
    return changed(quick_run, data=EVERYTHING)


def test_the_page_is_there_before_the_first_step(augmented_run, caplog):
    caplog.set_level("INFO")
    page = augmented_run.train.output / "run" / "plots" / "augmented.jpg"
    seen: list[bool] = []

    class Looks(Reporter):
        def begin(self, step, total_steps, steps_per_epoch) -> None:
            seen.append(page.is_file())

    starting.train(changed(augmented_run, train={"max_steps": 1}), Looks())
    assert seen == [True]
    with Image.open(page) as picture:
        assert picture.size == (4 * 256 + 5 * 8, 24 + 4 * (256 + 8))
        colors = np.asarray(picture)
    assert (colors[24:, :] < 250).any(-1).mean() > 0.9  # pictures everywhere
    assert any(str(page) in text for text in caplog.messages)
    assert [path.name for path in page.parent.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"warmup_steps": 1000}, r"warmup_steps=1000 is not less than the \d+ steps"),
        ({"patience": 50}, "patience=50 can't end the run early"),
        ({"ema_decay": 0.9999}, r"mostly those of the start; set train\.ema_ramp="),
        ({"lr": 0.0}, "the transformer learns nothing"),
    ],
)
def test_settings_that_make_a_run_useless_are_told(settings, sentence, quick_run, caplog):
    starting.train(changed(quick_run, train={"max_steps": 1, **settings}))
    assert re.search(sentence, " ".join(warnings_in(caplog)))


def test_it_shows_what_the_loader_yields(augmented_run):
    setup = set_up(augmented_run, make_accelerator(augmented_run), from_state=False)
    batches, _ = setup.batches()
    images, targets = next(batches)
    batches.close()
    draws = list(setup.first_draws(3, [0, 1]))
    assert [len(samples) for samples in draws] == [2, 2, 2]
    for i, samples in enumerate(draws):
        pixels, target = samples[0]
        assert torch.equal(pixels, images.pixels[i, :, : pixels.shape[1], : pixels.shape[2]])
        assert torch.equal(target.boxes, targets[i].boxes)
        assert torch.equal(target.labels, targets[i].labels)
        assert not torch.equal(pixels, samples[1][0])


def test_it_draws_no_random_numbers_of_the_run(augmented_run, tmp_path):
    setup = set_up(augmented_run, make_accelerator(augmented_run), from_state=False)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    introduction.show_augmented(setup, RunFolder(tmp_path))
    assert (tmp_path / "plots" / "augmented.jpg").exists()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_it_shows_every_image_at_most_once(augmented_run):
    """With fewer images than in a step, images repeat in an epoch."""
    settings = changed(augmented_run, train={"batch_size": 50})
    setup = set_up(settings, make_accelerator(settings), from_state=False)
    assert [len(list(setup.first_draws(images, [0]))) for images in (1, 1000)] == [1, 48]


def test_a_resume_draws_it_only_where_it_is_missing(augmented_run, monkeypatch):
    run = starting.train(changed(augmented_run, train={"max_steps": 1})).run
    first = run.augmented.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(introduction, "draw_augmented", lambda *_: pytest.fail("drawn twice"))
        starting.resume(run.path)
    run.augmented.unlink()
    starting.resume(run.path)
    assert run.augmented.read_bytes() == first


def test_no_failure_of_the_page_ends_a_run(augmented_run, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(introduction, "draw_augmented", full)
    assert starting.train(changed(augmented_run, train={"max_steps": 1})).finished
    assert any("augmented.jpg can't be written ([Errno 28] No space left" in text for text in warnings_in(caplog))


def test_a_broken_image_on_the_page_is_one_sentence(augmented_run, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for file in (augmented_run.data.root / "train2017").iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[:200])  # the header is whole
    settings = changed(augmented_run, data={"train_images": folder})
    with pytest.raises(InputError, match=r"^image \S+\.png is damaged .*; replace or remove the file$"):
        starting.train(settings)


def test_interrupted_and_resumed_with_everything_on(augmented_run):
    settings = changed(augmented_run, train={"max_steps": 4, "epochs": 4})
    whole = starting.train(changed(settings, train={"name": "whole"})).run
    assert not starting.train(settings, StopsAt(2)).finished
    run = starting.resume(augmented_run.train.output / "run").run
    assert metrics(run) == metrics(whole)


@pytest.mark.parametrize(("epochs", "level", "count"), [(2, "INFO", 1), (1, "WARNING", 0)])
def test_it_says_for_how_long_there_are_mosaics(augmented_run, caplog, epochs, level, count):
    caplog.set_level("INFO")
    settings = changed(augmented_run, train={"epochs": epochs})
    introduction.introduce(set_up(settings, make_accelerator(settings), from_state=False), None)
    said = [r for r in caplog.records if r.getMessage().startswith("mosaics in")]
    assert [r.levelname for r in said] == [level]
    assert said[0].getMessage() == f"mosaics in the first {count} of {epochs} epochs (data.mosaic_until)"


@pytest.mark.parametrize(
    ("until", "epochs", "expected"), [(0.8, 50, 40), (0.7, 10, 7), (0.29, 100, 29), (1.0, 3, 3), (0.5, 3, 1)]
)
def test_mosaics_end_at_a_whole_epoch(augmented_run, until, epochs, expected):
    settings = changed(augmented_run, data={"mosaic_until": until}, train={"epochs": epochs})
    assert set_up(settings, make_accelerator(settings), from_state=False).mosaic_epochs == expected
