"""Read the frames of videos, cameras and streams, and write videos, through PyAV.

Frames are upright: the rotation that a file records is applied. Sound is left out.
"""

import os
import re
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from PIL import Image

from conditional_detr.errors import ImageError, SettingsError
from conditional_detr.files import open_regular

SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"})
_CAMERA = re.compile(r"(?:camera:|/dev/video)(\d{1,4})")
_AHEAD = 4  # frames that are decoded before they are asked for
_OPEN_SECONDS, _READ_SECONDS = 15, 15  # of a stream that does not answer
_LONGEST_STEP = 3600.0  # seconds from one frame to the next, before they count as a jump of the clock
_MISSING_SECONDS = 0.5  # a file that ends this much earlier than it declares is cut off
_RATE = Fraction(30)  # of a source that tells none
_TICKS = 60_000  # a second, at which the usual frame rates are whole; MPEG-4 allows up to 65,535
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}
Item = TypeVar("Item")


class Frame(NamedTuple):
    """A frame of a video. number: from 0, those that can't be decoded are not counted. seconds: since the first frame."""

    number: int
    seconds: float
    image: Image.Image


def is_video(source: str | Path) -> bool:
    """Tell whether a text or path names a video file by its suffix, a camera ("camera:0", "/dev/video0") or a stream."""
    text = str(source)
    if is_file(source):
        return Path(text).suffix.lower() in SUFFIXES
    if text.lower().startswith(("http://", "https://")):
        try:
            return Path(urlsplit(text).path).suffix.lower() in SUFFIXES | {".m3u8"}
        except ValueError:  # malformed
            return False
    return True


def is_file(source: str | Path) -> bool:
    """Tell whether a text or path names a file, and not a camera or an address."""
    addresses = ("rtsp://", "rtsps://", "http://", "https://")
    return isinstance(source, Path) or not (_CAMERA.fullmatch(source) or source.lower().startswith(addresses))


def read_ahead(items: Iterator[Item], ahead: int) -> Generator[Item]:
    """Yield items in order. One thread takes up to ``ahead`` of them in advance."""
    end: Any = object()
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        pending: deque[Future[Item]] = deque(pool.submit(next, items, end) for _ in range(ahead))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, items, end))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)


class Video:
    """The frames of a video file, a camera or a stream: iterating yields RGB images, once and in order.

    ``Detector.stream`` takes it. Memory is constant, because a thread decodes only a few frames in advance. Close it at the
    end, or use it as a context manager.

    fps: frames per second, on average. size: (width, height) of the first frame in pixels, upright. count: number of frames that
    the file declares; None if it does not. broken: number of damaged frames so far: they are left out, or shown with errors
    where a part could be decoded. jumps: number of times so far that the clock of the video goes back, or ahead by more than an hour, after
    which the next frame follows at once. ending: what is wrong with the end of the video, such as that it is cut off; empty if nothing.
    """

    def __init__(self, source: str | Path) -> None:
        """source: the path of a file, the URL of a stream (rtsp, http, https), or "camera:N" for camera number N.

        Raises ``ImageError`` for what can't be opened and for a video without any frame, and ``SettingsError`` when PyAV is not
        installed.
        """
        self.source, self.broken, self.jumps, self.ending = source, 0, 0, ""
        self._rest: Generator[Frame] | None = None
        self._container = _opened(source)
        try:
            if not self._container.streams.video:
                raise ImageError(f"{source} holds no video, or is cut off; replace the file")
            self._stream = self._container.streams.video[0]
            if self._stream.codec_context is None:  # before its version 18.1, PyAV crashes when asked to decode
                raise ImageError(f"{source} holds no video that can be decoded, or is cut off; replace the file")
            self.fps = float(self._stream.average_rate or self._stream.guessed_rate or _RATE)
            self.count: int | None = self._stream.frames or None
            decoded = self._decode()
            self._first = next(decoded, None)
            if self._first is None:
                raise ImageError(f"{source} holds no frame that can be decoded, or is cut off; replace the file")
        except BaseException:
            self.close()
            raise
        self.size = self._first.image.size
        self._rest = read_ahead(decoded, _AHEAD)

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._rest is not None:
            self._rest.close()  # first, because its thread reads
        self._container.close()

    def __iter__(self) -> Iterator[Image.Image]:
        for frame in self.frames():
            yield frame.image

    def frames(self) -> Iterator[Frame]:
        """Yield the frames with their numbers and times."""
        first, self._first = self._first, None
        if first is not None:
            yield first
            del first
        assert self._rest is not None
        yield from self._rest

    def _decode(self) -> Iterator[Frame]:
        number, start, seconds = 0, None, 0.0
        for decoded in self._undecoded():
            if decoded.time is None:  # some cameras tell no times
                seconds = number / self.fps
            else:
                start = decoded.time if start is None else start
                step = decoded.time - start - seconds
                if number and not 0 <= step <= _LONGEST_STEP:  # files that were joined, or a clock that was set
                    start += step - 1 / self.fps
                    self.jumps += 1
                seconds = decoded.time - start
            image: Image.Image = decoded.to_image()
            turn = _TURNS.get(decoded.rotation)
            yield Frame(number, seconds, image if turn is None else image.transpose(turn))
            number += 1
        self._judge_end(number, seconds)

    def _undecoded(self) -> Iterator[Any]:
        """Yield the frames of PyAV. Damaged packets are counted; an error of the file or of the connection ends the video."""
        av = _av()
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                self.ending = f"{self.source} can't be read to its end ({_reason(error)})"
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError):
                self.broken += 1
                continue
            for frame in frames:
                self.broken += frame.is_corrupt
                yield frame

    def _judge_end(self, decoded: int, seconds: float) -> None:
        """Say when the file ends earlier than it declares. Two signs are needed, because each alone may be harmless.

        Files that were trimmed without encoding hold frames that are not shown; the last frame may last for long.
        """
        stream, container = self._stream, self._container
        if stream.duration is not None:
            declared = float(stream.duration * stream.time_base)
        else:
            declared = (container.duration or 0) / 1e6
        ended = seconds + 1 / self.fps
        complete = self.count is not None and decoded + self.broken >= self.count > 1
        if decoded and not (self.ending or self.jumps or complete) and ended < declared - _MISSING_SECONDS:
            self.ending = f"{self.source} ends after {ended:.1f} of {declared:.1f} seconds, so it may be cut off"


def _av() -> Any:
    """Return PyAV. Raises ``SettingsError`` naming the pip command when it is not installed."""
    try:
        import av
    except ImportError as error:
        raise SettingsError("videos need PyAV: pip install 'conditional-detr[video]'") from error
    return av


def _opened(source: str | Path) -> Any:
    """Open a file, a camera or a stream as a container of PyAV. Raises ``ImageError``."""
    av, text = _av(), str(source)
    camera, address = _CAMERA.fullmatch(text), not is_file(source)
    try:
        if camera:
            return av.open(*_camera(int(camera[1])))
        if address:
            options = {"rtsp_transport": "tcp"} if text.lower().startswith("rtsp") else {}
            return av.open(text, options=options, timeout=(_OPEN_SECONDS, _READ_SECONDS))
        with open_regular(Path(source)) as file:  # opening a pipe could block
            if not file.read(1):
                raise ImageError(f"video {source} is empty; replace the file")
        # The prefix and the option keep FFmpeg from reading anything but files, whatever the name or the content says.
        return av.open(f"file:{source}", options={"protocol_whitelist": "file"})
    except FileNotFoundError as error:
        if camera:
            raise ImageError(f"camera {camera[1]} is not there; connect it, or correct the number") from error
        raise ImageError(f"video {source} does not exist; check the path") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        if camera:
            raise ImageError(
                f"camera {camera[1]} can't be opened ({_reason(error)}); close other programs that use it"
            ) from error
        if address:
            raise ImageError(
                f"{source} can't be reached ({_reason(error)}); check the address and the network"
            ) from error
        if isinstance(error, (av.error.InvalidDataError, av.error.EOFError)):
            raise ImageError(f"{source} is not a video of a known format, or is cut off; replace the file") from error
        raise ImageError(f"video {source} can't be read ({_reason(error)}); check it") from error


def _camera(number: int) -> tuple[str, str, str]:
    """Return the arguments with which PyAV opens a camera: its name, the mode, and the format of the system."""
    if sys.platform == "darwin":
        return str(number), "r", "avfoundation"
    if os.name == "nt":
        raise ImageError("cameras can't be opened on Windows yet; record a video and give its path")
    return f"/dev/video{number}", "r", "v4l2"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class VideoWriter:
    """Writes frames to an MP4 file, H.264 where the encoder is there and MPEG-4 elsewhere. Close it at the end.

    The file can be played up to its last second also when it is never closed, as on a full disk: it consists of fragments, which
    closing turns into an ordinary file.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        """size: (width, height) in pixels; frames of another size are scaled. Odd sizes get a black line, as encoders need even ones.

        Raises ``OSError`` when the file can't be written.
        """
        av = _av()
        self.size = size
        self._time = -1
        self._from_image = av.VideoFrame.from_image
        # Every fragment is in the file at once, and not in the memory of this process.
        options = {"movflags": "hybrid_fragmented+negative_cts_offsets", "flush_packets": "1"}
        self._container = av.open(str(path), "w", format="mp4", container_options=options)
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream(codec, rate=rate)
        self._stream.width, self._stream.height = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream.codec_context.gop_size = min(max(round(fps), 1), 250)  # a fragment is a group of frames
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            self._stream.codec_context.qmin = self._stream.codec_context.qmax = 4

    def add(self, image: Image.Image, seconds: float) -> None:
        """Write an RGB image. seconds: when it is shown. Raises ``OSError``, as on a full disk."""
        width, height = self.size
        if image.size != self.size:
            image = image.resize(self.size)
        if width % 2 or height % 2:
            image = image.crop((0, 0, width + width % 2, height + height % 2))
        frame = self._from_image(image)
        self._time = max(self._time + 1, round(seconds * _TICKS))  # times have to rise
        frame.pts, frame.time_base = self._time, Fraction(1, _TICKS)
        with _told():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left, and the index. Raises ``OSError``, as on a full disk."""
        with _told():
            try:
                self._container.mux(self._stream.encode())
            finally:
                self._container.close()


@contextmanager
def _told() -> Generator[None]:
    """Turn errors of the encoder, such as of sizes that it can't hold, into ``OSError`` as those of the disk."""
    try:
        yield
    except _av().FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise OSError(f"the encoder of the video failed: {_reason(error)}") from error
