"""Locks on files, which end with the process that holds them, however it ends."""

import errno
import os
import socket
import sys
import warnings
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_BUSY = (errno.EAGAIN, errno.EACCES)  # network file systems give the second
_held: set[int] = set()  # file descriptors of the locks of this process


class BusyError(Exception):
    """The lock is held. The message says by which process."""


class FileLock:
    """Exclusive lock on a file, which is created where it is missing and stays afterwards.

    Raises ``BusyError`` when another lock on the file is held, in this process or in another. Warns where the system or the file
    system has no locks; then nothing is excluded.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._descriptor: int | None = None
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        self._descriptor = os.open(file, flags, 0o666)
        _held.add(self._descriptor)
        try:
            _lock(self._descriptor, file)
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BaseException:
            self.release()
            raise

    def in_place(self) -> bool:
        """Tell whether the folder of the file is the one it was. It is not after it was removed, or removed and made again."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.file))
        except FileNotFoundError:
            return self.file.parent.is_dir()

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor in _held:  # not in a forked process, which has closed it
            _held.remove(descriptor)
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()


def _lock(descriptor: int, file: Path) -> None:
    reason = "this system has no such locks"
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in _BUSY:
                raise BusyError(
                    os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                ) from error
            reason = str(error.strerror)
    warnings.warn(f"{file.parent} can't be locked ({reason}): make sure that no other process uses it", stacklevel=3)


def _close_in_fork() -> None:
    """Leave the locks to the parent. A loading process that kept them would lock the folder of a run that was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
