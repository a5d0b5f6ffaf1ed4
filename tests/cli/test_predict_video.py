"""``cdetr predict`` on videos: what it writes, however it ends, and what it refuses."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from conditional_detr import Detector, Video
from conditional_detr.cli.video_results import VideoResults
from conditional_detr.video import VideoWriter
from tests.cli.test_commands import cdetr, refused
from tests.conftest import no_room_for_files_over
from tests.videos import cut, write_video

COUNT = 16
TINY = "starter:tiny"


def moving(i: int) -> Image.Image:
    """A rectangle that moves to the right, and an ellipse that moves to the left, on color noise as in generated shapes."""
    noise = np.random.default_rng(0).integers(70, 120, (7, 10, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((160, 112), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    pen.rectangle((5 + 3 * i, 10, 42 + 3 * i, 45), fill=(220, 40, 30))
    pen.ellipse((115 - 3 * i, 65, 152 - 3 * i, 100), fill=(30, 40, 220))
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    writer = VideoWriter(path, (160, 112), 12.0)
    for i in range(COUNT):
        writer.add(moving(i), i / 12)
    writer.close()
    return path


def lines(out: Path, name: str = "clip") -> list[dict]:
    """The lines of frames, without the first one."""
    first, *rest = map(json.loads, (out / f"{name}.jsonl").read_text().splitlines())
    assert first["info"]["program"] == "cdetr predict video"
    return rest


def images(path: Path) -> list[Image.Image]:
    with Video(path) as video:
        return list(video)


def after(count: int, act, monkeypatch) -> None:
    """Call ``act`` before frame number ``count`` is written."""
    plain = VideoResults.add

    def add(self, frame, found):
        if frame.number == count:
            act()
        plain(self, frame, found)

    monkeypatch.setattr(VideoResults, "add", add)


def test_a_video_and_a_line_for_every_frame(clip, tmp_path):
    result = cdetr("predict", TINY, clip, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(
        rf"\d+ objects in {COUNT} of {COUNT} frames of .*clip\.mp4, \d+\.\d frames per second; "
        r"clip\.mp4 and clip\.jsonl are in .*\n",
        result.stdout,
    )
    assert result.stderr == ""
    assert sorted(os.listdir(tmp_path)) == ["clip.jsonl", "clip.mp4"]
    found = lines(tmp_path)
    assert [line["frame"] for line in found] == list(range(COUNT))
    assert [line["seconds"] for line in found] == pytest.approx([i / 12 for i in range(COUNT)], abs=0.001)
    with Video(clip) as video, Video(tmp_path / "clip.mp4") as written:
        assert (written.fps, written.size, written.count) == (12, (160, 112), COUNT)
        expected = [each.detections for each in Detector.from_pretrained(TINY).stream(video)]
        changed = [before != after for before, after in zip(images(clip), written, strict=True)]
    assert all(changed)  # boxes are drawn
    for line, detections in zip(found, expected, strict=True):
        assert [each["score"] for each in line["objects"]] == detections.scores.tolist()
        assert [each["bbox"] for each in line["objects"]] == [each["bbox"] for each in detections.to_coco(0)]
        assert {each["category_name"] for each in line["objects"]} == {"object"}
    printed = cdetr("predict", TINY, clip, "--json", "--batch-size", 5)
    assert [json.loads(line)["frame"] for line in printed.stdout.splitlines()[1:]] == list(range(COUNT))
    assert json.loads(printed.stdout.splitlines()[0])["info"]["batch_size"] == 5


def test_only_some_frames_are_computed_and_boxes_stay_between(clip, tmp_path):
    assert cdetr("predict", TINY, clip, "--every", 6, "--threshold", 0.3, "--out", tmp_path).returncode == 0
    assert [line["frame"] for line in lines(tmp_path)] == [0, 6, 12]
    every = images(tmp_path / "clip.mp4")
    assert len(every) == COUNT
    x, y, width, height = next(each["bbox"] for each in lines(tmp_path)[0]["objects"] if each["bbox"][1] > 55)
    right_line = (round(x + width) - 2, round(y) + 4, round(x + width) + 3, round(y + height) - 4)
    differs = []
    for pair in zip(every[:8], images(clip)[:8], strict=True):
        drawn, plain = (np.asarray(image.crop(right_line), int) for image in pair)
        differs.append(np.abs(drawn - plain).max() > 60)
    assert differs == [True] * 6 + [False] * 2


def test_tracks_are_stable(clip, tmp_path):
    for every in (1, 3):
        assert (
            cdetr("predict", TINY, clip, "--track", "--every", every, "--threshold", 0.3, "--out", tmp_path).returncode
            == 0
        )
        tops: dict[int, set[bool]] = {}
        found = lines(tmp_path)
        for line in found:
            for each in line["objects"]:
                tops.setdefault(each["track_id"], set()).add(each["bbox"][1] < 55)
        counts = {id_: sum(id_ in [each["track_id"] for each in line["objects"]] for line in found) for id_ in tops}
        two = sorted(counts, key=counts.__getitem__)[-2:]
        assert all(counts[id_] >= 0.8 * len(found) for id_ in two)
        assert [tops[id_] for id_ in sorted(two, key=lambda id_: min(tops[id_]))] == [{False}, {True}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_keep_what_is_done(number, clip, tmp_path, monkeypatch):
    before = signal.getsignal(number)
    after(5, lambda: os.kill(os.getpid(), number), monkeypatch)
    result = cdetr("predict", TINY, clip, "--out", tmp_path)
    assert result.returncode == 1
    assert signal.getsignal(number) == before
    found = re.fullmatch(
        r"error: interrupted: (\d+) frames of .*clip\.mp4 are done and kept in .*clip\.mp4 and clip\.jsonl\n",
        result.stderr,
    )
    assert found, result.stderr
    assert 5 <= int(found[1]) < COUNT
    assert len(lines(tmp_path)) == len(images(tmp_path / "clip.mp4")) == int(found[1])
    assert sorted(os.listdir(tmp_path)) == ["clip.jsonl", "clip.mp4"]
    monkeypatch.undo()
    assert cdetr("predict", TINY, clip, "--out", tmp_path).returncode == 0  # replaces its own results
    assert len(lines(tmp_path)) == COUNT


def test_before_the_first_frame_nothing_is_written(clip, tmp_path, monkeypatch):
    def fail() -> None:
        raise OSError(28, "No space left on device")

    after(0, fail, monkeypatch)
    result = cdetr("predict", TINY, clip, "--out", tmp_path)
    assert result.returncode == 1
    assert "can't be written (No space left on device): 0 frames of" in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_what_is_done(clip, tmp_path):
    with no_room_for_files_over(5000):
        result = cdetr("predict", TINY, clip, "--out", tmp_path)
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: .* can't be written \(File too large\): \d+ frames of .* are done and kept in .*\n", result.stderr
    ), result.stderr
    found = lines(tmp_path)
    assert 0 < len(found) < COUNT
    assert [line["frame"] for line in found] == list(range(len(found)))
    assert sorted(os.listdir(tmp_path)) == ["clip.jsonl", "clip.mp4"]


def test_a_cut_off_file_is_told(tmp_path):
    path = cut(write_video(tmp_path / "x.mp4", 50), 0.5)
    result = cdetr("predict", TINY, path, "--every", 10, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert re.search(
        r"x\.mp4 ends after 0\.\d of 2\.0 seconds, so it may be cut off; what can be decoded is done", result.stderr
    )
    assert "objects in 2 of" in result.stdout
    assert [line["frame"] for line in lines(tmp_path / "out", "x")] == [0, 10]


def test_several_videos_of_one_name(clip, tmp_path):
    other = write_video(tmp_path / "clip.mp4", 4)
    (tmp_path / "bad.mp4").write_text("no video")
    result = cdetr("predict", TINY, clip, tmp_path / "*.mp4", "--every", 12, "--out", tmp_path / "out", "--tiles", 90)
    assert result.returncode == 2
    assert result.stderr.startswith("skipped: ")
    assert "bad.mp4 is not a video" in result.stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["clip-2.jsonl", "clip-2.mp4", "clip.jsonl", "clip.mp4"]
    assert len(images(tmp_path / "out" / "clip-2.mp4")) == len(images(other))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.jsonl"])
def test_files_of_others_are_never_replaced(name, clip, tmp_path):
    (tmp_path / name).write_bytes(b"mine")
    refused(cdetr("predict", TINY, clip, "--out", tmp_path), rf"{name} was not written by this command")
    assert (tmp_path / name).read_bytes() == b"mine"
    assert os.listdir(tmp_path) == [name]
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(clip)
    refused(cdetr("predict", TINY, clip, "--out", tmp_path), rf"{name} was not written by this command")
    refused(
        cdetr("predict", TINY, clip, "--out", clip.parent),
        r"clip\.mp4 is in .*, where videos are written; name another",
    )


def test_what_is_refused(clip, tmp_path, monkeypatch):
    Image.new("RGB", (100, 100)).save(tmp_path / "x.png")
    picture, out = tmp_path / "x.png", tmp_path / "out"
    for arguments, sentence in (
        (
            (clip, picture),
            r"clip\.mp4 is a video and .*x\.png is none; give videos and images to commands of their own",
        ),
        ((tmp_path / "no.mp4",), r"no\.mp4 does not exist; check the path"),
        ((tmp_path / "no*.mp4",), "is a pattern without matches; correct the path"),
        (("camera:73",), r"camera 73 (is not there; connect it|can't be opened)"),
        ((clip, "--every", 0), "--every is 0; give a whole number from 1"),
        ((clip, "--tiles", 0), r"side of tiles is 0; give a whole number of pixels from 1 \(here: --tiles\)"),
        (
            (picture, "--tiles", 64, "--overlap", 1),
            r"overlap of tiles is 1\.0; give a part in 0\.\.0\.9 \(here: --overlap\)",
        ),
        ((picture, "--overlap", 0.5), "--overlap is for tiles; give --tiles too"),
        ((picture, "--every", 2), "--every and --track are for videos"),
        ((picture, "--track"), "--every and --track are for videos"),
    ):
        refused(cdetr("predict", TINY, *arguments, "--out", out), sentence)
    assert not out.exists() or not os.listdir(out)
    monkeypatch.setitem(sys.modules, "av", None)
    refused(cdetr("predict", TINY, clip, "--out", out), r"videos need PyAV: pip install 'conditional-detr\[video\]'")


def test_tiles_of_images(tmp_path):
    image = Image.new("RGB", (384, 320), (90, 110, 100))
    pen = ImageDraw.Draw(image)
    for x in (20, 120, 200, 310):
        pen.rectangle((x, 120, x + 31, 150), fill=(220, 40, 30))
    image.save(tmp_path / "large.png")
    counts = []
    for options in ((), ("--tiles", 128), ("--tiles", 128)):
        result = cdetr("predict", TINY, tmp_path / "large.png", "--out", tmp_path / "out", *options)
        assert result.returncode == 0, result.stderr
        data = json.loads((tmp_path / "out" / "detections.json").read_text())
        counts.append(len(data["annotations"]))
        assert data["info"]["tiles"] == (128 if options else None)
    assert counts[1] == counts[2] == 4
    assert "1 of 1 images are done already" in result.stderr
