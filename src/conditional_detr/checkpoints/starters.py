"""Starters: small trained detectors inside the package, from which training on few photographs starts.

``scripts/make_starters`` makes them. Each is a checkpoint folder with a card, ``starters/NAME/README.md``.
"""

from importlib import resources
from pathlib import Path

from conditional_detr.errors import CheckpointError, did_you_mean

PREFIX = "starter:"


def _folder() -> Path:
    return Path(str(resources.files("conditional_detr") / "starters"))


def starter_names() -> list[str]:
    """Return the names of the starters, such as ``starter:tiny``."""
    return sorted(f"{PREFIX}{path.name}" for path in _folder().iterdir() if path.is_dir())


def starter_folder(source: str) -> Path | None:
    """Return the checkpoint folder of a starter; None for a source that is none. Raises ``CheckpointError`` for an unknown name."""
    if not source.startswith(PREFIX):
        return None
    known = starter_names()
    if source not in known:
        raise CheckpointError(f"there is no {source}{did_you_mean(source, known)}; starters: {', '.join(known)}")
    return _folder() / source.removeprefix(PREFIX)
