"""Files that are whole or not there: written under another name and renamed."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` so that a kill leaves the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
