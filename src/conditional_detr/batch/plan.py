"""What decides the rows of a batch, kept beside them so that a repeated command goes on with the same."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from conditional_detr.errors import SettingsError, newer_version
from conditional_detr.strict_json import JSONError, read_json_text

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector

VERSION = 1
_PROGRAM = "cdetr batch"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The images of a batch in shards, and what computes them.

    images: number of images. inputs: checksum of their addresses, in order. shard_size: images in each shard but the last.
    model: fingerprint of the detector. threshold: as given; with "auto", ``thresholds`` are its scores, by category id.
    optimize: whether the fast path computes, which rounds differently. package: version of this package.
    """

    images: int
    inputs: str
    shard_size: int
    model: str
    threshold: float | Literal["auto"]
    thresholds: tuple[tuple[int, float], ...] | None = None
    batch_size: int = 1
    optimize: bool = False
    package: str

    @property
    def shards(self) -> int:
        return math.ceil(self.images / self.shard_size)

    @property
    def checksum(self) -> str:
        """Checksum of everything here, which every shard carries."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def range_of(self, shard: int) -> range:
        """Return the places of a shard's images among all."""
        return range(self.images)[shard * self.shard_size : (shard + 1) * self.shard_size]

    def paths_of(self, shard: int, paths: Sequence[str]) -> Sequence[str]:
        """Return the addresses of a shard, from those of all images."""
        places = self.range_of(shard)
        return paths[places.start : places.stop]

    def to_json(self) -> str:
        values = {"program": _PROGRAM, "version": VERSION, **asdict(self), "shards": self.shards}
        return json.dumps(values, indent=2) + "\n"

    def check(self, text: str, file: str) -> None:
        """Raise ``SettingsError`` unless the plan in ``file``, with this text, equals this one."""
        there = _read(text, file)
        ours = json.loads(self.to_json())
        changed = [each.name for each in fields(self) if there.get(each.name) != ours[each.name]]
        if changed:
            told = " and ".join(_TOLD[name].format(there=there.get(name), ours=ours[name]) for name in changed[:2])
            raise SettingsError(
                f"{file} is of a batch with {told}; repeat that command, or name another folder", argument="folder"
            )


_TOLD = {
    "images": "{there} images instead of {ours}",
    "inputs": "other images",
    "shard_size": "shards of {there} images instead of {ours}",
    "model": "another model",
    "threshold": "threshold {there} instead of {ours}",
    "thresholds": "other measured thresholds",
    "batch_size": "batch size {there} instead of {ours}",
    "optimize": "optimize={there} instead of {ours}",
    "package": "version {there} of this package instead of {ours}",
}


def make_plan(
    detector: "Detector",
    paths: Sequence[str],
    threshold: float | Literal["auto"] = 0.5,
    *,
    shard_size: int = 1000,
    batch_size: int = 1,
    optimize: bool = False,
) -> Plan:
    """Return the plan of a batch. Raises ``SettingsError`` for an invalid threshold."""
    from conditional_detr import __version__
    from conditional_detr.inference.fingerprint import fingerprint

    numbers = detector.thresholds(threshold)
    return Plan(
        images=len(paths),
        inputs=_checksum(paths),
        shard_size=shard_size,
        model=fingerprint(detector),
        threshold="auto" if isinstance(numbers, dict) else numbers,
        thresholds=tuple(numbers.items()) if isinstance(numbers, dict) else None,
        batch_size=batch_size,
        optimize=optimize,
        package=__version__,
    )


def _checksum(paths: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()


def _read(text: str, file: str) -> dict[str, Any]:
    """Return the values of a plan. Raises ``SettingsError`` for what is none, and for a newer version."""
    try:
        found: Any = read_json_text(text)
    except JSONError as error:
        raise SettingsError(f"{file} is not valid JSON ({error}); name another folder", argument="folder") from error
    if not isinstance(found, dict) or found.get("program") != _PROGRAM:
        raise SettingsError(f"{file} was not written by {_PROGRAM}; name another folder", argument="folder")
    if (version := found.get("version")) != VERSION:
        if isinstance(version, int) and version > VERSION:
            raise SettingsError(newer_version(file, "plan", version, VERSION), argument="folder")
        raise SettingsError(f"{file} has no known version; name another folder", argument="folder")
    return found


def parse_part(text: str | None) -> tuple[int, int]:
    """Return which part of the shards an array job computes, such as (2, 4) of "2/4"; (1, 1) without a text.

    Raises ``SettingsError`` for anything but two whole numbers of which the first is in 1 to the second.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text or "1/1")
    if found and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise SettingsError(
        f"part {text!r} does not exist; give I/N with I from 1 to N, such as 1/4 to 4/4", argument="shard"
    )
