"""Atomic writes: a file is complete or absent, with the mode of other new files."""

import errno
import os
import signal
import stat

import pytest
import torch
from safetensors.torch import save_file

from conditional_detr import files
from conditional_detr.files import whole_file, write_text
from tests.conftest import in_fork


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


def test_a_file_is_on_disk_before_its_name_is(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(
        "os.fsync", lambda file: events.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
    )
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda *paths: (events.append("rename"), replace(*paths)))
    write_text(tmp_path / "x", "text")
    assert events == ["file", "rename", "folder"]


def test_a_file_system_that_can_not_sync_folders_is_no_error(tmp_path, monkeypatch):
    def sync(file):
        raise OSError(errno.EINVAL if stat.S_ISDIR(os.fstat(file).st_mode) else errno.EIO, "no")

    monkeypatch.setattr("os.fsync", sync)
    files.sync(tmp_path)
    (tmp_path / "x").touch()
    with pytest.raises(OSError, match="no") as caught:
        files.sync(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the limit stays with the process")
def test_a_full_disk_is_an_error_with_the_name_of_the_file(tmp_path):
    """A limit on the size of files stands for a full disk."""

    def write() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for name in ("text", "tensors"):
            with pytest.raises(OSError, match="File too large") as caught, files.whole_file(tmp_path / name) as partial:
                partial.write_bytes(bytes(2000)) if name == "text" else save_file({"x": torch.zeros(1000)}, partial)
            assert caught.value.filename == str(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    assert in_fork(write) == 0
