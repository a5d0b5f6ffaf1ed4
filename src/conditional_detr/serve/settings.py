"""Settings of the server."""

from dataclasses import dataclass, field
from pathlib import Path

from conditional_detr.errors import SettingsError


@dataclass(frozen=True)
class ServerSettings:
    """What a server is told at its start. All limits hold for each request.

    name: name of the model in answers and addresses. batch_size: maximum number of images computed at once. wait_ms: time in
    milliseconds that an image waits for others of its shape while nothing else is to be computed. queue: maximum number of images that are
    accepted and not answered. max_bytes: of a request's body. max_pixels: of an image, before it is decoded. max_images: in a
    request. seconds: from the first byte of a request to its answer. drain_seconds: that requests in flight have when the server is told
    to stop. threshold: minimum score where a request gives none. keys: API keys, one of which a request has to give; empty: none
    is needed. url_hosts: hosts whose images a request may name by URL; "*.example.org" for all below a domain. samples: folder of
    images that the page offers; None: generated ones. page: whether ``/`` shows the page.
    """

    name: str = "detector"
    batch_size: int = 8
    wait_ms: float = 2.0
    queue: int = 64
    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_images: int = 16
    seconds: float = 30.0
    drain_seconds: float = 30.0
    threshold: float = 0.5
    keys: tuple[str, ...] = field(default=(), repr=False)
    url_hosts: tuple[str, ...] = ()
    samples: Path | None = None
    page: bool = True


def read_keys(file: Path) -> tuple[str, ...]:
    """Read API keys, one in every line. Lines that are empty or begin with ``#`` are left out. Raises ``SettingsError``."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not ASCII text"
        raise SettingsError(f"{file} can't be read ({reason}); give a text file with a key in every line") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise SettingsError(
            f"{file} holds no key; write one in every line, such as the output of: openssl rand -hex 32"
        )
    for number, line in enumerate(lines, 1):
        if line in keys and (len(line) < 16 or not line.isprintable() or " " in line):
            raise SettingsError(
                f"line {number} of {file} is no key of at least 16 characters without spaces; replace it"
            )
    return keys
