"""A killed loading process is one error, where a batch is awaited."""

import multiprocessing
import os
import signal
import time
from collections import deque

import pytest

from conditional_detr import read_split
from conditional_detr.config import DataSettings
from conditional_detr.data.loading import training_batches
from conditional_detr.data.watching import watched
from conditional_detr.errors import RunError
from tests.data.test_loading import SETTINGS


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="the system does not tell that a process ended")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of files that earlier tests left open
@pytest.mark.parametrize("wait", [0.0, 0.05])  # the death is seen after the next batch, or before it
def test_a_killed_loading_process(shapes_root, wait):
    """The process takes what it has sent along, so the connection can break before the death is seen."""
    data = read_split(DataSettings(root=shapes_root), "train")
    for _ in range(3):
        batches, _ = training_batches(data, SETTINGS.model_copy(update={"workers": 2}), 4, 1, seed=5)
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        time.sleep(wait)  # nothing is raised here
        with pytest.raises(
            RunError, match=r"a loading process was killed, most often because memory ran out \(.+\); set "
        ):
            deque(batches, maxlen=0)
        os.kill(os.getpid(), signal.SIGCHLD)  # nor here
        assert not multiprocessing.active_children()


def test_processes_that_can_not_be_started():
    class Loader:
        def __iter__(self):
            raise OSError(12, "Cannot allocate memory")

    with pytest.raises(RunError, match=r"loading processes can't be started \(Cannot allocate memory\); set a smaller"):
        next(watched(Loader()))


def test_other_errors_are_those_of_the_loader():
    def loader():
        yield 1
        raise RuntimeError("a fault of our own")

    items = watched(loader())
    assert next(items) == 1
    with pytest.raises(RuntimeError, match="a fault of our own"):
        next(items)
