"""Atomic writes: a file is complete or absent, with the mode of other new files."""

import os
import shutil
import stat

import pytest
import torch
from safetensors.torch import save_file

from conditional_detr.files import whole_file, whole_folder, write_text


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


def write_parts(out, error=None):
    with whole_folder(out) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "x").write_text("x")
        (partial / "y").write_text("y")
        assert not (out / "y").exists()
        if error:
            raise error


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_is_whole_or_not_there(tmp_path, existed):
    out = tmp_path / "new" / "out"
    if existed:
        out.mkdir(parents=True)
    for error in (KeyboardInterrupt, OSError):
        with pytest.raises(error):
            write_parts(out, error)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        assert out.exists() == existed
    write_parts(out)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) == ["sub", "sub/x", "y"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_folder_that_can_not_be_moved_in_whole_is_emptied_again(tmp_path, monkeypatch):
    moves = []

    def replace(source, target):
        if moves:
            raise OSError(5, "broken", str(target))
        moves.append(target)
        shutil.move(source, target)

    monkeypatch.setattr(os, "replace", replace)
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="broken"):
        write_parts(tmp_path / "out")
    assert moves
    assert list((tmp_path / "out").iterdir()) == []
