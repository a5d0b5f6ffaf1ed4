"""Several batches at once on a processor: the same results in the same order, and torch's threads as before."""

import threading
import time
from itertools import count, islice

import pytest
import torch

from conditional_detr.inference.streams import in_streams


@pytest.fixture(autouse=True)
def four_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


def _threads_of_a_new_thread() -> int:
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_streams_share_the_threads_and_leave_those_of_others():
    def own(_):
        time.sleep(0.02)
        return threading.get_ident(), torch.get_num_threads()

    stream = in_streams(own, range(8), 2)
    first = next(stream)
    assert (torch.get_num_threads(), _threads_of_a_new_thread()) == (4, 4)
    found = [first, *stream]
    assert len({ident for ident, _ in found}) == 2
    assert {threads for _, threads in found} == {2}
    assert (torch.get_num_threads(), _threads_of_a_new_thread()) == (4, 4)


def test_results_are_in_order_and_few_are_ahead():
    started = []

    def slow_at_first(item):
        started.append(item)
        time.sleep(0.1 if item == 0 else 0)
        return item

    assert list(islice(in_streams(slow_at_first, count(), 2), 20)) == list(range(20))
    assert len(started) <= 20 + 3


def test_an_error_ends_the_stream():
    def fails(item):
        if item == 3:
            raise ValueError("item 3")
        return item

    stream = in_streams(fails, count(), 2)
    assert list(islice(stream, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3"):
        next(stream)
