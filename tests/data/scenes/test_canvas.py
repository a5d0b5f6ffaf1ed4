"""Boxes are those of the visible pixels."""

import math

import numpy as np
import pytest

from conditional_detr.data.scenes.canvas import VISIBLE, Canvas, Pose, Sprite, render
from conditional_detr.data.scenes.kinds import KINDS
from conditional_detr.data.scenes.parts import HOLE, box, disk, stroke

WHITE = np.full((6, 3), 255, dtype=np.float32)


def black(height: int = 60, width: int = 80) -> Canvas:
    return Canvas(np.zeros((height, width, 3), dtype=np.float32))


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1


def square(side: int, level: float = 255) -> Sprite:
    return Sprite(np.full((side, side, 3), level, dtype=np.float32), np.ones((side, side), dtype=np.float32))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_box_is_tight_around_the_pixels_of_any_object(kind):
    rng = np.random.default_rng(1)
    for longer in (6, 20, 47, 130):
        canvas = black(170, 170)
        pose = Pose(longer, kind.aspects[0], rng.uniform(-3, 3), taper=rng.uniform(0, 0.3), mirrored=longer == 20)
        canvas.paint(render(kind.draw(rng), pose, WHITE), 15, 15)
        (found,) = canvas.boxes()
        if found is None:  # half a pixel thin
            assert longer == 6
            continue
        assert found == extent(canvas.pixels[..., 0] >= 127.5)
        assert max(found[2:]) == pytest.approx(
            longer, abs=max(2, 0.15 * longer)
        )  # round joints of strokes may stick out


def test_boxes_are_of_what_later_objects_leave_visible():
    """Compare with the masks of single objects, in pictures in which they hide each other and are cut by the edges."""
    rng = np.random.default_rng(2)
    left_out = 0
    for _ in range(30):
        canvas, masks, fulls = black(), [], []
        for _ in range(12):
            kind = KINDS[rng.integers(len(KINDS))]
            pose = Pose(rng.uniform(8, 50), kind.aspects[1], rng.uniform(-3, 3))
            sprite = render(kind.draw(rng), pose, WHITE)
            left, top = int(rng.integers(-20, 70)), int(rng.integers(-20, 50))
            canvas.paint(sprite, left, top)
            room = np.zeros((200, 220), dtype=bool)
            height, width = sprite.coverage.shape
            room[70 + top : 70 + top + height, 70 + left : 70 + left + width] = sprite.coverage >= 0.5
            masks.append(room[70:130, 70:150])
            fulls.append(room.sum())
        hidden = np.zeros((60, 80), dtype=bool)
        for mask, full, found in reversed(list(zip(masks, fulls, canvas.boxes(), strict=True))):
            visible = mask & ~hidden
            hidden |= mask
            if visible.sum() < VISIBLE * full or not visible.any():
                assert found is None
                left_out += 1
            elif found is not None:
                assert found == extent(visible)
            else:
                assert min(extent(visible)[2:]) < 2 or max(extent(visible)[2:]) < 4
    assert left_out > 20


def test_an_object_is_left_out_when_less_than_a_third_is_visible():
    for covered, annotated in ((0, True), (6, True), (8, False), (10, False)):
        canvas = black()
        canvas.paint(square(10), 20, 20)
        canvas.paint(square(10, level=100), 20, 30 - 10 + covered - 10 if covered else 50)
        assert (canvas.boxes()[0] is not None) == annotated
    outside = black()
    outside.paint(square(10), -8, 20)
    outside.paint(square(10), -6, 40)
    outside.paint(square(10), 300, 300)
    assert outside.boxes() == [None, (0, 40, 4, 10), None]


def test_opaque_clutter_hides_and_transparent_clutter_does_not():
    canvas = black()
    canvas.paint(square(10), 20, 20)
    canvas.paint(square(6), 20, 20, opacity=0.4, counted=False)
    assert canvas.boxes() == [(20, 20, 10, 10)]
    canvas.paint(Sprite(np.zeros((10, 4, 3), np.float32), np.ones((10, 4), np.float32)), 20, 20, counted=False)
    assert canvas.boxes() == [(24, 20, 6, 10)]


def test_holes_show_what_is_behind():
    canvas = black()
    canvas.paint(render([disk(0, 0, 1), disk(0, 0, 0.6, HOLE)], Pose(40), WHITE), 10, 10)
    assert canvas.pixels[31, 31].tolist() == [0, 0, 0]
    assert canvas.owner[31, 31] != 0


def test_a_pose_turns_and_stretches():
    tall = render([box(-1, -1, 1, 1)], Pose(40, aspect=0.25), WHITE).coverage
    turned = render([box(-1, -1, 1, 1)], Pose(40, aspect=0.25, angle=math.pi / 2), WHITE).coverage
    assert extent(tall >= 0.5)[2:] == pytest.approx((10, 40), abs=1)
    assert extent(turned >= 0.5)[2:] == pytest.approx((40, 10), abs=1)
    tapered = render([box(-1, -1, 1, 1)], Pose(40, taper=0.5), WHITE).coverage >= 0.5
    assert tapered[3].sum() == pytest.approx(20, abs=2)
    assert tapered[38].sum() == pytest.approx(40, abs=2)
    thin = render([stroke([(-1, 0), (1, 0)], 0.001)], Pose(40), WHITE).coverage
    assert thin.max() >= 0.5  # a line of less than a pixel stays visible


def test_a_shadow_darkens_the_picture_and_hides_nothing():
    canvas = Canvas(np.full((60, 80, 3), 200, dtype=np.float32))
    canvas.paint(square(10), 20, 20)
    canvas.darken(np.ones((10, 10), dtype=np.float32), 24, 24, amount=0.5, blur=1.5)
    assert canvas.pixels[28, 28].max() < 140
    assert canvas.pixels[50, 70].tolist() == [200, 200, 200]
    assert canvas.boxes() == [(20, 20, 10, 10)]
    canvas.darken(np.ones((10, 10), dtype=np.float32), 300, -300, amount=0.5, blur=1.5)
