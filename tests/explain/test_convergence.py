"""The point at which a run reaches an AP, from our metrics and from MMDetection's logs."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from conditional_detr.config import Settings
from conditional_detr.errors import InputError
from conditional_detr.explain.convergence import Curve, Point, compare, read_curve, round_levels
from conditional_detr.explain.plots import plot_convergence
from conditional_detr.runs import RunFolder
from conditional_detr.training import starting
from tests.test_metrics_file import CONTENTS, EVALUATION, TRAIN, lines


def curve(*aps: float) -> Curve:
    """Return a curve with an evaluation after every epoch, each of 10 steps and 5 seconds."""
    points = tuple(Point(float(i), 10.0 * i, 5.0 * i, ap) for i, ap in enumerate(aps, start=1))
    return Curve("run", points, float(len(aps)), None)


def test_reached_on_a_straight_line_between_evaluations():
    run = curve(0.1, 0.3, 0.2, 0.6)
    assert run.reached(0.2) == pytest.approx((1.5, 15, 7.5, 0.2))
    assert run.reached(0.05) == pytest.approx((0.5, 5, 2.5, 0.05))  # from AP 0 at the start
    assert run.reached(0.3) == pytest.approx((2, 20, 10, 0.3))
    assert run.reached(0.4) == pytest.approx((3.5, 35, 17.5, 0.4))  # not in the epoch in which AP fell
    assert run.reached(0.61) is None
    assert run.best == Point(4.0, 40.0, 20.0, 0.6)
    assert curve().best is None


def test_ratios_and_their_bounds():
    slow, fast, stuck = curve(*(0.1 * i for i in range(1, 7))), curve(0.3, 0.6), curve(0.01, 0.01, 0.02)
    assert compare(fast, slow, 0.6).ratio == pytest.approx(3)
    assert compare(slow, fast, 0.6).ratio == pytest.approx(1 / 3)
    unreached = compare(stuck, slow, 0.6)  # slow took 6 epochs, stuck has not done it in 3
    assert (unreached.point, unreached.ratio, unreached.bound) == (None, pytest.approx(2), "<")
    assert compare(fast, stuck, 0.6)[1:] == (pytest.approx(1.5), ">")
    going_on = replace(stuck, epochs=3.9)  # it may have reached it since its last evaluation
    assert compare(going_on, slow, 0.6) == unreached
    assert compare(fast, curve(), 0.6) == (fast.reached(0.6), None, "")
    assert compare(stuck, curve(), 0.6) == (None, None, "")
    assert compare(curve(), slow, 0.6) == (None, None, "")


def test_round_levels():
    assert round_levels([curve(0.01, 0.68), curve(0.3)]) == [0.2, 0.3, 0.4, 0.5, 0.6]
    assert round_levels([curve(0.23)]) == [0.05, 0.1, 0.15, 0.2]
    assert round_levels([curve(0.001), curve()]) == []


def test_a_run_folder_done_and_going_on(quick_run, tmp_path):
    run = starting.train(quick_run).run
    whole = read_curve(run.path)
    assert (whole.name, whole.epochs, whole.planned) == ("run", 2, 2)
    assert [point.step for point in whole.points] == [6, 12]
    assert 0 < whole.points[0].seconds < whole.points[1].seconds
    lines = run.metrics.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "evaluation")
    run.metrics.write_text("\n".join(lines[: first + 2]) + '\n{"kind": "tr')  # an incomplete line
    going_on = read_curve(run.path)
    assert going_on.points == whole.points[:1]
    assert (going_on.epochs, going_on.planned) == (pytest.approx(8 / 6), 2)
    run.metrics.unlink()
    nothing = read_curve(run.path)
    assert (nothing.points, nothing.epochs) == ((), 0)
    plot_convergence([whole, going_on, nothing], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def run_with(folder: Path, content: bytes) -> Curve:
    """Return the curve of a run folder with these metrics."""
    folder.mkdir(exist_ok=True)
    run = RunFolder(folder)
    run.write_config(Settings())
    run.metrics.write_bytes(content)
    return read_curve(folder)


def test_evaluations_that_measure_nothing_are_no_points(tmp_path, caplog):
    nothing = run_with(tmp_path / "a", lines(TRAIN, {**EVALUATION, "AP": -1.0, "AP50": -1.0}))
    assert (nothing.points, nothing.best, nothing.epochs) == ((), None, 1)
    assert run_with(tmp_path / "b", lines(EVALUATION)).points == (Point(1, 10, 3.5, 0.25),)
    untimed = {key: value for key, value in EVALUATION.items() if key != "seconds"}
    assert caplog.messages == []
    assert len(run_with(tmp_path / "c", lines(untimed, EVALUATION)).points) == 1
    assert caplog.messages == [
        f"{tmp_path / 'c' / 'metrics.jsonl'}: left out 1 evaluations without seconds of training"
    ]


def test_a_run_that_had_the_ap_before_it_began_has_no_ratio(tmp_path):
    start = run_with(tmp_path / "a", lines({**EVALUATION, "step": 0, "epoch": 0}))
    assert compare(start, curve(0.5), 0.25) == (Point(0, 0, 3.5, 0.25), None, "")
    assert compare(curve(0.5), start, 0.25).ratio == 0
    assert compare(start, start, 0.25).ratio is None


@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONTENTS)
def test_any_metrics_can_be_compared(tmp_path, content):
    run = run_with(tmp_path / "run", content)
    other = curve(0.1, 0.3)
    levels = [0.05, *round_levels([run, other])]
    found = [compare(a, b, level) for level in levels for a, b in ((run, other), (other, run), (run, run))]
    json.dumps([found, run.points, run.best, run.epochs], allow_nan=False)


VERSION_2 = [
    {"env_info": "...", "seed": 0, "exp_name": "x.py"},
    {"mode": "train", "epoch": 1, "iter": 50, "lr": 1e-4, "data_time": 0.1, "loss": 9.0, "time": 0.5},
    {"mode": "train", "epoch": 1, "iter": 100, "lr": 1e-4, "data_time": 0.1, "loss": 8.0, "time": 0.3},
    {"mode": "val", "epoch": 1, "iter": 625, "lr": 1e-4, "bbox_mAP": 0.1, "bbox_mAP_50": 0.2},
    {"mode": "train", "epoch": 2, "iter": 50, "lr": 1e-4, "data_time": 0.1, "loss": 7.0, "time": 0.4},
    {"mode": "train", "epoch": 2, "iter": 100, "lr": 1e-4, "data_time": 0.1, "loss": 6.0, "time": 0.4},
    {"mode": "val", "epoch": 2, "iter": 625, "lr": 1e-4, "bbox_mAP": 0.25, "bbox_mAP_50": 0.4},
]
VERSION_3 = [
    {"lr": 1e-4, "data_time": 0.1, "loss": 9.0, "time": 0.5, "epoch": 1, "iter": 50, "memory": 1, "step": 50},
    {"lr": 1e-4, "data_time": 0.1, "loss": 8.0, "time": 0.3, "epoch": 1, "iter": 100, "memory": 1, "step": 100},
    {"coco/bbox_mAP": 0.1, "coco/bbox_mAP_50": 0.2, "data_time": 0.01, "time": 0.02, "step": 1},
    {"lr": 1e-4, "data_time": 0.1, "loss": 7.0, "time": 0.4, "epoch": 2, "iter": 150, "memory": 1, "step": 150},
    {"lr": 1e-4, "data_time": 0.1, "loss": 6.0, "time": 0.4, "epoch": 2, "iter": 200, "memory": 1, "step": 200},
    {"coco/bbox_mAP": 0.25, "coco/bbox_mAP_50": 0.4, "data_time": 0.01, "time": 0.02, "step": 2},
]


@pytest.mark.parametrize("records", [VERSION_2, VERSION_3], ids=["2", "3"])
def test_logs_of_mmdetection(records, tmp_path):
    file = tmp_path / "conditional-detr_r50_8xb2-50e_coco.log.json"
    file.write_text("\n".join(map(json.dumps, records)) + '\n{"lr": 1e')
    run = read_curve(file)
    assert run.name == "conditional-detr_r50_8xb2-50e_coco"
    assert run.points == (pytest.approx((1, 100, 40, 0.1)), pytest.approx((2, 200, 80, 0.25)))
    assert run.planned is None


def test_odd_lines_of_mmdetection(tmp_path, caplog):
    file = tmp_path / "x.log.json"
    odd = [
        {"mode": "train", "epoch": 1, "iter": 60, "time": float("nan"), "loss": float("nan")},
        {"mode": "train", "epoch": 10**400, "iter": True, "time": "soon"},
        {"mode": "val", "epoch": 2, "bbox_mAP": -1.0},
    ]
    file.write_bytes(lines(*VERSION_2[:4], *odd, *VERSION_2[4:]))
    assert read_curve(file).points == (pytest.approx((1, 100, 40, 0.1)), pytest.approx((2, 200, 80, 0.25)))
    file.write_bytes(lines(*VERSION_2[:4], b"what", b"[" * 100_000, *VERSION_2[4:]))
    assert len(read_curve(file).points) == 2
    assert caplog.messages == [f"{file}: left out 2 lines that are not JSON, the first is line 5"]


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "other.json").write_text(
        '{"epoch": 1}\n[1]\n3\n{"time": null, "iter": 3}\n{"bbox_mAP": "0.1", "epoch": 1}\n'
    )
    (tmp_path / "test.json").write_text('{"coco/bbox_mAP": 0.4, "time": 0.1}\n')  # an evaluation alone
    iterations = [{key: value for key, value in record.items() if key != "epoch"} for record in VERSION_3]
    (tmp_path / "iterations.json").write_text("\n".join(map(json.dumps, iterations)))
    (tmp_path / "percent.json").write_text('{"mode": "val", "epoch": 1, "bbox_mAP": 41.0}\n')
    (tmp_path / "picture.png").write_bytes(bytes([137, 80, 255]))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises(InputError, match="it is not a file"):
            read_curve(tmp_path / "pipe.json")
    for name, sentence in [
        ("other.json", "holds no evaluations"),
        ("test.json", "holds no evaluations"),
        ("iterations.json", "counts iterations"),
        ("percent.json", "has bbox_mAP 41; give a log in which AP is from 0 to 1"),
        ("picture.png", "is not text"),
        ("nothing.json", "can't be read"),
        (".", "not a run folder"),
    ]:
        with pytest.raises(InputError, match=sentence):
            read_curve(tmp_path / name)


def test_names_of_runs_are_no_formulas(tmp_path):
    odd = [replace(curve(0.1), name=name) for name in ("$\\frac$", "50$ and 60$", "\udce9\x1b", "_x")]
    plot_convergence(odd, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        picture.load()
