"""Atomic writes: a file is complete or absent, with the mode of other new files."""

import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from conditional_detr.files import whole_file, write_text


@pytest.fixture(params=[0o022, 0o077, 0o002])
def usual(request):
    """The mode that a new file has with this umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_modes_follow_the_umask(usual, tmp_path):
    with whole_file(tmp_path / "model.safetensors") as partial:
        save_file({"x": torch.zeros(1)}, partial)
    write_text(tmp_path / "config.json", "{}")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "model.safetensors": usual,
        "config.json": usual,
    }


def test_a_failure_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "x", "before")
    with pytest.raises(TypeError), whole_file(tmp_path / "x") as partial:
        partial.write_text(3)
    assert (tmp_path / "x").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
