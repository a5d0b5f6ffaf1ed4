"""Videos are read in order and upright, in constant memory, as far as they can be decoded, and written so that they can be played."""

import os
import sys
import time
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from conditional_detr import ImageError, SettingsError, Video
from conditional_detr.video import VideoWriter, is_video, read_ahead
from tests.conftest import no_room_for_files_over
from tests.videos import SIZE, cut, number_of, picture, turn, write_video


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".ts"])
def test_frames_come_in_order(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    if suffix == ".mpg":  # which has no H.264 everywhere
        write_video(tmp_path / "x.avi").rename(path)
    else:
        write_video(path)
    with Video(path) as video:
        assert (video.fps, video.size) == (25, SIZE)
        frames = list(video.frames())
        assert [frame.number for frame in frames] == list(range(30))
        assert [frame.seconds for frame in frames] == pytest.approx([i / 25 for i in range(30)], abs=0.002)
        assert [number_of(frame.image) for frame in frames] == pytest.approx(range(30), abs=1)
        assert {(frame.image.mode, frame.image.size) for frame in frames} == {("RGB", SIZE)}
        assert (video.broken, video.ending) == (0, "")


@pytest.mark.parametrize(
    ("matrix", "size", "corner"),
    [
        ((0, 1, -1, 0), (64, 96), "lower right"),
        ((-1, 0, 0, -1), (96, 64), "lower left"),
        ((0, -1, 1, 0), (64, 96), "upper left"),
    ],
)
def test_rotation_is_honored(matrix, size, corner, tmp_path):
    """The blue square, at the upper right as stored, is where players show it."""
    path = write_video(tmp_path / "x.mp4", 3)
    turn(path, *matrix)
    with Video(path) as video:
        assert video.size == size
        for image in video:
            width, height = image.size
            places = {
                "upper left": (5, 5),
                "lower left": (5, height - 5),
                "lower right": (width - 5, height - 5),
            }
            red, _, blue = image.getpixel(places[corner])
            assert blue - red > 100


def test_memory_is_constant(tmp_path):
    path = write_video(tmp_path / "x.mp4", 120)
    images: list[weakref.ref[Image.Image]] = []
    most = 0
    plain = av.VideoFrame.to_image

    class Counted(Video):
        def _undecoded(self):
            for frame in super()._undecoded():
                yield _Counting(frame)

    class _Counting:
        def __init__(self, frame):
            self._frame, self.time, self.rotation = frame, frame.time, frame.rotation

        def to_image(self):
            image = plain(self._frame)
            images.append(weakref.ref(image))
            return image

    with Counted(path) as video:
        for i, _ in enumerate(video):
            if i % 20 == 0:
                time.sleep(0.05)  # the thread gets ahead as far as it may
            most = max(most, sum(each() is not None for each in images))
    assert 3 <= most <= 9


def test_a_cut_off_file_gives_what_can_be_decoded(tmp_path):
    for name, part in (("x.mp4", 0.6), ("x.mkv", 0.5)):
        path = cut(write_video(tmp_path / name, 50), part)
        with Video(path) as video:
            numbers = [number_of(image) for image in video]
            assert 10 < len(numbers) < 45
            assert numbers == pytest.approx(range(len(numbers)), abs=1)
            assert "ends after" in video.ending
            assert "of 2.0 seconds, so it may be cut off" in video.ending


def test_a_cut_off_index_is_told(tmp_path):
    """The index at the end of an MP4 file is a tree, which can end in any of its boxes. "stco" is the last one that is needed."""
    content = write_video(tmp_path / "whole.mp4", front=False).read_bytes()
    path = tmp_path / "x.mp4"
    for end in range(content.index(b"moov") - 4, content.rindex(b"stco"), 40):
        path.write_bytes(content[:end])
        with pytest.raises(ImageError, match="is cut off; replace the file"):
            Video(path)


def test_a_clock_that_jumps(tmp_path):
    """Files that were joined begin anew, and a camera's clock is set. Times go on from frame to frame."""
    first, second = (write_video(tmp_path / name, 10) for name in ("a.ts", "b.ts"))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with Video(joined) as video:
        seconds = [frame.seconds for frame in video.frames()]
        assert (video.jumps, video.ending) == (1, "")
    assert len(seconds) == 20
    assert np.diff(seconds) == pytest.approx(1 / 25, abs=0.005)


def test_an_encoder_that_fails_is_told_as_a_disk_that_is_full(tmp_path):
    writer = VideoWriter(tmp_path / "x.mp4", (17_000, 32), 25.0)
    with pytest.raises(OSError, match="the encoder of the video failed"):
        writer.add(Image.new("RGB", (17_000, 32)), 0.0)


def test_broken_frames_are_counted_and_the_rest_is_read(tmp_path):
    path = write_video(tmp_path / "x.mp4", 40)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for place in (12, 13, 27):
        start, size = packets[place]
        content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    with Video(path) as video:
        numbers = [number_of(image) for image in video]
        assert video.broken >= 3
        assert numbers == sorted(numbers)
        assert numbers[-1] == pytest.approx(39, abs=1)
        assert len(numbers) >= 37
        assert video.ending == ""


def test_what_is_no_video_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("no video" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")  # would open an address
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    for name, sentence in (
        ("text.mp4", "text.mp4 is not a video of a known format, or is cut off; replace the file"),
        ("empty.mp4", "empty.mp4 is empty; replace the file"),
        ("folder.mp4", "folder.mp4 can't be read .*; check it"),
        ("pipe.mp4", r"pipe.mp4 can't be read \(it is not a file\); check it"),
        ("list.mp4", "list.mp4 (is not a video|can't be read|holds no)"),
        ("sound.mp4", "sound.mp4 holds no video"),
        ("missing.mp4", "missing.mp4 does not exist; check the path"),
    ):
        with pytest.raises(ImageError, match=sentence):
            Video(tmp_path / name)
    with pytest.raises(ImageError, match=r"camera 73 (is not there; connect it|can't be opened)"):
        Video("camera:73")
    for address in ("rtsp://127.0.0.1:9/x", "http://127.0.0.1:9/x.m3u8"):
        with pytest.raises(ImageError, match=r"can't be reached \(.*\); check the address and the network"):
            Video(address)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SettingsError, match=r"pip install 'conditional-detr\[video\]'"):
        Video(tmp_path / "text.mp4")


def test_what_names_a_video():
    videos = (
        "x.MP4",
        "a/b.webm",
        "camera:0",
        "/dev/video2",
        "rtsp://host/x",
        "https://host/x.m3u8?y=1",
        "http://host/x.mp4",
    )
    assert all(is_video(each) for each in videos)
    assert not any(
        is_video(each) for each in ("x.jpg", "folder", "https://host/x.jpg", "camera", "rtsp", "/dev/videos")
    )


def test_closing_in_the_middle_ends_the_thread(tmp_path):
    with Video(write_video(tmp_path / "x.mp4")) as video:
        assert number_of(next(iter(video))) == 0
    taken = []
    reading = read_ahead((taken.append(i) or i for i in range(100)), 3)
    assert [next(reading), next(reading)] == [0, 1]
    reading.close()
    assert 2 <= len(taken) <= 5


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize(("size", "fps"), [((96, 64), 25.0), ((97, 63), 30000 / 1001)])
def test_written_videos_keep_frames_rate_and_size(codec, size, fps, tmp_path, monkeypatch):
    if codec == "mpeg4":
        monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    writer = VideoWriter(tmp_path / "x.part", size, fps)
    for i in range(40):
        writer.add(picture(i, size), i / fps)
    writer.close()
    with av.open(str(tmp_path / "x.part")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == {"libx264": "h264", "mpeg4": "mpeg4"}[codec]
        assert stream.average_rate == Fraction(fps).limit_denominator(1001)
        assert (stream.frames, stream.width, stream.height) == (40, size[0] + size[0] % 2, size[1] + size[1] % 2)
        frames = [(frame.time, frame.to_image()) for frame in container.decode(stream)]
    assert [seconds for seconds, _ in frames] == pytest.approx([i / fps for i in range(40)], abs=1e-4)
    difference = np.abs(np.asarray(frames[20][1], int)[: size[1], : size[0]] - np.asarray(picture(20, size), int))
    assert difference.mean() < 8


def test_times_of_a_variable_rate_are_kept(tmp_path):
    times = [0.0, 0.01, 0.5, 0.5, 0.9]  # two at the same time
    writer = VideoWriter(tmp_path / "x.mp4", SIZE, 10.0)
    for i, seconds in enumerate(times):
        writer.add(picture(i), seconds)
    writer.close()
    with Video(tmp_path / "x.mp4") as video:
        assert [frame.seconds for frame in video.frames()] == pytest.approx(times, abs=0.001)


def test_a_file_that_is_never_closed_can_be_played(tmp_path):
    writer = VideoWriter(tmp_path / "x.mp4", SIZE, 10.0)
    for i in range(60):
        writer.add(picture(i), i / 10)
    (tmp_path / "killed.mp4").write_bytes((tmp_path / "x.mp4").read_bytes())
    writer.close()
    with Video(tmp_path / "killed.mp4") as video:
        numbers = [number_of(image) for image in video]
    assert numbers == pytest.approx(range(len(numbers)), abs=1)
    assert 20 <= len(numbers) < 60


def test_on_a_full_disk_what_was_written_can_be_played(tmp_path):
    writer = VideoWriter(tmp_path / "x.mp4", (160, 120), 10.0)
    rng = np.random.default_rng(0)

    def write() -> None:
        for i in range(200):
            writer.add(Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)), i / 10)

    with no_room_for_files_over(400_000):
        with pytest.raises(OSError, match="File too large"):
            write()
        with pytest.raises(OSError, match="File too large"):
            writer.close()
    with Video(tmp_path / "x.mp4") as video:
        assert len(list(video)) > 5
