"""A lock excludes others until its process ends, however it ends, and is not kept by processes that it started."""

import os
import signal
import time

import pytest

from conditional_detr.locking import BusyError, FileLock
from tests.conftest import in_fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="locks are those of POSIX")


def is_free(file) -> bool:
    try:
        FileLock(file).release()
    except BusyError:
        return False
    return True


def test_a_lock_excludes_this_process_and_others(tmp_path):
    lock = FileLock(tmp_path / "x")
    assert not is_free(tmp_path / "x")
    assert in_fork(lambda: is_free(tmp_path / "x") or os._exit(3)) == 3
    lock.release()
    lock.release()
    assert is_free(tmp_path / "x")
    FileLock(tmp_path / "x")  # nothing keeps it
    assert is_free(tmp_path / "x")


def test_the_lock_of_a_killed_process_is_free_while_its_children_live(tmp_path):
    """The children are loading processes, which notice only after seconds that their parent was killed."""
    file, child = tmp_path / "x", tmp_path / "child"

    def hold() -> None:
        lock = FileLock(file)
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        child.write_text(str(pid))
        assert not is_free(file)
        os.kill(os.getpid(), signal.SIGKILL)
        lock.release()

    assert in_fork(hold) == -signal.SIGKILL
    try:
        os.kill(int(child.read_text()), 0)  # it lives
        assert is_free(file)
    finally:
        os.kill(int(child.read_text()), signal.SIGKILL)


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "x").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / "x")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(
        UserWarning, match=r"can't be locked \(Operation not supported\): make sure that no other process"
    ):
        FileLock(tmp_path / "x").release()


def test_a_lock_is_in_place_until_its_folder_is_another(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lock = FileLock(folder / "x")
    (folder / "x").unlink()  # someone tidied up
    assert lock.in_place()
    folder.rmdir()
    assert not lock.in_place()
    folder.mkdir()
    other = FileLock(folder / "x")
    assert not lock.in_place()
    assert other.in_place()
