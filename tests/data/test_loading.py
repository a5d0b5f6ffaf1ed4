"""Batches depend on the seed but not on the number of workers, contain each image once, and restart at any step."""

import shutil
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from conditional_detr.config import DataSettings
from conditional_detr.data.annotations import Names
from conditional_detr.data.batching import pad
from conditional_detr.data.loading import (
    LeftOut,
    TrainingBatches,
    evaluation_batches,
    training_batches,
    training_images,
)
from conditional_detr.data.reading import read_split
from conditional_detr.errors import InputError
from conditional_detr.input_size import InputSize


@pytest.fixture
def data(shapes_root):
    return read_split(DataSettings(root=shapes_root), "train")


SETTINGS = DataSettings(short_sides=(64, 96), max_size=128, crop_short_sides=(80,), crop_min=40, crop_max=70, workers=0)


def first(data, count, **changes):
    settings = SETTINGS.model_copy(update={k: v for k, v in changes.items() if k in DataSettings.model_fields})
    rest = {k: v for k, v in changes.items() if k not in DataSettings.model_fields}
    batches, _ = training_batches(data, settings, **{"batch_size": 4, "accumulate": 1, "seed": 5, **rest})
    return list(islice(batches, count))


def equal(a, b) -> bool:
    return all(
        torch.equal(x.pixels, y.pixels)
        and [t.image_id for t in s] == [t.image_id for t in u]
        and all(torch.equal(t.boxes, v.boxes) for t, v in zip(s, u, strict=True))
        for (x, s), (y, u) in zip(a, b, strict=True)
    )


def test_workers_change_nothing(data):
    assert equal(first(data, 14), first(data, 14, workers=2))


def test_seed_changes_order_and_augmentation(data):
    assert not equal(first(data, 2), first(data, 2, seed=6))


def test_restart_in_the_middle_of_a_later_epoch(data):
    assert equal(first(data, 17)[14:], first(data, 3, start_step=14))


def test_augmentation_differs_between_epochs(data):
    steps = 48 // 4
    batches = first(data, 2 * steps)
    by_id = [{t.image_id: b.pixels.shape for b, ts in part for t in ts} for part in (batches[:steps], batches[steps:])]
    assert by_id[0].keys() == by_id[1].keys()
    assert by_id[0] != by_id[1]


def test_processes_share_an_epoch_without_overlap(data):
    ids = [[t.image_id for _, targets in first(data, 6, rank=rank, processes=2) for t in targets] for rank in (0, 1)]
    assert sorted(ids[0] + ids[1]) == data.image_ids.tolist()


def test_processes_see_the_batches_of_one_large_process(data):
    """Two processes with two images each, or two accumulated passes, get the images of one process with four images."""
    one = [{t.image_id for t in targets} for _, targets in first(data, 3, batch_size=4)]
    ranks = [first(data, 3, batch_size=2, rank=rank, processes=2) for rank in (0, 1)]
    two = [{t.image_id for _, targets in step for t in targets} for step in zip(*ranks, strict=True)]
    passes = first(data, 6, batch_size=2, accumulate=2)
    accumulated = [{t.image_id for _, targets in passes[i : i + 2] for t in targets} for i in (0, 2, 4)]
    assert one == two == accumulated


def test_fewer_images_than_a_batch_repeat():
    sampler = TrainingBatches(portrait=None, images=3, batch_size=4, accumulate=1, rank=0, processes=2, seed=0)
    assert sampler.steps_per_epoch == 1
    batch = next(iter(sampler))
    assert len(batch) == 4
    assert {index for _, index in batch} == {0, 1, 2}


def test_grouping_by_aspect_ratio():
    portrait = np.arange(41) % 3 == 0
    sampler = TrainingBatches(portrait=portrait, images=41, batch_size=4, accumulate=1, rank=0, processes=1, seed=0)
    batches = sampler.order(0).reshape(-1, 4)
    mixed = sum(len(set(portrait[batch])) == 2 for batch in batches)
    assert mixed <= 1
    assert len(np.unique(batches)) == 40


def test_evaluation_sees_every_image_once(shapes_root):
    data = read_split(DataSettings(root=shapes_root), "val")  # 11 images, an odd number
    seen = [
        target.image_id
        for rank in (0, 1)
        for _, targets in evaluation_batches(data, InputSize((96, 96)), 2, 0, rank, 2)
        for target in targets
    ]
    assert sorted(seen) == data.image_ids.tolist()


def test_padding_mask_only_when_padded():
    assert pad([torch.zeros(3, 4, 5), torch.zeros(3, 4, 5)]).padding_mask is None
    batch = pad([torch.ones(3, 4, 5), torch.ones(3, 2, 6)])
    assert batch.pixels.shape == (2, 3, 4, 6)
    assert batch.padding_mask[0].tolist() == [[False] * 5 + [True]] * 4
    assert torch.equal(batch.pixels[:, 0] == 0, batch.padding_mask)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_is_one_sentence(data, tmp_path, workers):
    broken = tmp_path / data.file_names[0]
    for name in data.file_names:
        (tmp_path / name).write_bytes(data.folder.joinpath(name).read_bytes())
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(InputError, match=rf"{broken.name} is damaged") as caught:
        first(replace(data, folder=tmp_path), 12, workers=workers)
    assert "\n" not in str(caught.value)


def test_image_of_another_size_than_annotated_is_refused(data, tmp_path):
    for name in data.file_names:
        Image.new("RGB", (50, 96)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"is 50 x 96 .* says 96 x 96"):
        first(replace(data, folder=tmp_path), 1)


# --- augmentation beyond the published one ---

EVERYTHING = {"mosaic": 0.5, "scale_jitter": 0.5, "vertical_flip": 0.5, "quarter_turns": 0.75, "color_jitter": 0.5}


def test_workers_change_nothing_with_everything_on(data):
    assert equal(first(data, 14, **EVERYTHING), first(data, 14, workers=2, **EVERYTHING))


def test_restart_with_everything_on(data):
    assert equal(first(data, 17, **EVERYTHING)[14:], first(data, 3, start_step=14, **EVERYTHING))


def test_epochs_and_seeds_differ_with_everything_on(data):
    settings = SETTINGS.model_copy(update=EVERYTHING)
    one, again, other_seed = (training_images(data, settings, seed) for seed in (5, 5, 6))
    pixels = [[images[epoch, 3].sample[0] for epoch in range(4)] for images in (one, again, other_seed)]
    assert all(torch.equal(a, b) for a, b in zip(pixels[0], pixels[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(pixels[0], pixels[2], strict=True))
    assert not any(torch.equal(pixels[0][i], pixels[0][j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_can_be_on_alone(data, name):
    plain, changed = first(data, 4), first(data, 4, **{name: 1.0})
    assert not equal(plain, changed)
    for _, targets in changed:
        for target in targets:
            corners = torch.cat(
                [target.boxes[:, :2] - target.boxes[:, 2:] / 2, target.boxes[:, :2] + target.boxes[:, 2:] / 2]
            )
            assert ((corners > -1e-5) & (corners < 1 + 1e-5)).all()
            assert (target.labels < len(data.categories)).all()


def test_mosaics_end_after_their_epochs(data):
    """Later epochs are those of a run without mosaics."""
    settings = SETTINGS.model_copy(update={"mosaic": 1.0})
    images, without = training_images(data, settings, 5, mosaic_epochs=2), training_images(data, SETTINGS, 5)
    for epoch in range(4):
        for index in (0, 30):
            (pixels, target), (plain_pixels, plain_target) = images[epoch, index].sample, without[epoch, index].sample
            assert target.image_name.startswith("mosaic of ") == (epoch < 2)
            assert (torch.equal(pixels, plain_pixels) and torch.equal(target.boxes, plain_target.boxes)) == (epoch >= 2)
    assert equal(first(data, 2, mosaic=1.0, mosaic_epochs=0), first(data, 2))


def test_mosaics_are_as_frequent_as_asked(data):
    images = training_images(data, SETTINGS.model_copy(update={"mosaic": 0.25}), 5)
    mosaics = sum(images[0, index].sample[1].image_name.startswith("mosaic of ") for index in range(48))
    assert 6 <= mosaics <= 18


def test_a_mosaic_is_in_the_shape_of_its_image(data, tmp_path):
    """Batches stay grouped by aspect ratio. The other three images have any shape."""
    sizes = data.sizes.copy()
    sizes[::2] = (96, 60)
    for i, name in enumerate(data.file_names):
        Image.new("RGB", (sizes[i, 1], sizes[i, 0])).save(tmp_path / name)
    mixed = replace(data, folder=tmp_path, sizes=sizes)
    settings = {"mosaic": 1.0, "crop": 0.0, "group_by_aspect_ratio": True, "max_size": 160}
    batches = first(mixed, 12, **settings)
    for _, targets in batches:
        assert len({t.image_size for t in targets}) == 1
    images = training_images(mixed, SETTINGS.model_copy(update=settings), 5)
    for index in range(6):
        pixels, target = images[0, index].sample
        assert pixels.shape[1] / pixels.shape[2] == pytest.approx(sizes[index, 0] / sizes[index, 1], rel=0.02)
        assert target.image_id == data.image_ids[index]


def test_a_mosaic_of_few_images(data):
    """One image, and images without objects."""
    one = replace(
        data,
        sizes=data.sizes[:1],
        image_ids=data.image_ids[:1],
        file_names=Names(data.file_names[:1]),
        offsets=data.offsets[:2],
    )
    for images, labels in ((one, 1), (replace(data, usable=np.zeros_like(data.usable)), 0)):
        pixels, target = training_images(images, SETTINGS.model_copy(update={"mosaic": 1.0}), 0)[0, 0].sample
        assert pixels.shape[0] == 3
        assert (len(target.labels) > 0) == labels
        assert target.boxes.shape == (len(target.labels), 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_in_a_mosaic_is_one_sentence(data, tmp_path, workers):
    broken = tmp_path / data.file_names[0]
    for name in data.file_names:
        (tmp_path / name).write_bytes(data.folder.joinpath(name).read_bytes())
    broken.write_bytes(b"")
    moved = replace(data, folder=tmp_path)
    assert training_images(moved, SETTINGS, 5)[0, 1].sample is not None
    with pytest.raises(InputError, match=rf"^{broken} is empty; replace or remove the file$"):
        first(moved, 12, workers=workers, mosaic=1.0)


def test_draws_are_what_the_loader_yields(data, monkeypatch):
    """They read the image once, and the others of its mosaics once each."""
    images = training_images(data, SETTINGS.model_copy(update=EVERYTHING), 5, mosaic_epochs=3)
    expected = [images[epoch, 7].sample for epoch in range(4)]
    read: list[int] = []
    original = images.read
    monkeypatch.setattr(images, "read", lambda index: read.append(index) or original(index))
    for (pixels, target), (other_pixels, other_target) in zip(images.draws(7, range(4)), expected, strict=True):
        assert torch.equal(pixels, other_pixels)
        assert torch.equal(target.boxes, other_target.boxes)
        assert target.image_name == other_target.image_name
    assert read.count(7) == 1
    assert len(read) > 1


# --- images that can't be used ---


@pytest.fixture
def damaged(shapes_root, tmp_path):
    """Training data of which images 3 and 4 are damaged, the third and the fourth in the list."""
    root = shutil.copytree(shapes_root, tmp_path / "damaged")
    data = read_split(DataSettings(root=root), "train")  # their headers are still whole
    for name in ("000003", "000004"):
        (root / "train2017" / f"{name}.png").write_bytes(b"damaged")
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_replaced_by_the_next_usable_one(damaged, data, workers):
    """Nothing else changes: order, number of images and augmentation of the others are those without damage."""
    left_out = LeftOut()
    found = first(damaged, 12, workers=workers, leave_out=left_out)
    assert {name[-10:] for name in left_out.names} == {"000003.png", "000004.png"}
    replaced = 0
    for (_, targets), (_, expected) in zip(found, first(data, 12), strict=True):
        for ours, theirs in zip(targets, expected, strict=True):
            wanted = 5 if theirs.image_id in (3, 4) else theirs.image_id
            assert ours.image_id == wanted
            replaced += wanted != theirs.image_id
    assert replaced == 2


def test_an_epoch_without_damage_is_the_same_whatever_is_asked_for(data):
    assert equal(first(data, 6), first(data, 6, leave_out=LeftOut()))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_in_no_batch_of_an_evaluation(damaged, workers):
    size, left_out = InputSize((96, 96)), LeftOut()
    batches = list(evaluation_batches(damaged, size, 1, workers, leave_out=left_out))
    assert [target.image_id for _, targets in batches for target in targets] == [1, 2, *range(5, 49)]
    assert len(left_out.names) == 2
    with pytest.raises(InputError, match=r"000003\.png"):
        list(evaluation_batches(damaged, size, 1, workers))


def test_a_damaged_image_of_a_mosaic_is_replaced(damaged):
    left_out = LeftOut()
    batches = first(damaged, 12, mosaic=1.0, leave_out=left_out)
    assert {name[-10:] for name in left_out.names} == {"000003.png", "000004.png"}
    names = " ".join(target.image_name for _, targets in batches for target in targets)
    assert "mosaic of" in names
    assert "000003.png" not in names
