"""What tests share: the folder of reference numbers, a small generated data set, and small models."""

import importlib.util
import os
import shutil
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from conditional_detr.config import ModelSettings, Settings, load_settings
from conditional_detr.data.shapes import SHAPES, write_shapes
from conditional_detr.model.network import build_model

SHARED = Path(__file__).parents[2] / "shared"
if os.environ.get("PYTEST_XDIST_WORKER"):  # one of several processes: one thread, also in what it starts
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
else:
    torch.set_num_threads(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape what pytest-xdist can't send, such as half of a pair of UTF-16 code units in a logged file name."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


class _FailuresAtOnce:
    """Tell of a failure when it happens, because a suite that is stopped shows no summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self.terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.terminal.write_line(f"\n{report.nodeid} ({report.when}): {report.longreprtext[-1000:]}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # not in the processes of pytest-xdist
        config.pluginmanager.register(_FailuresAtOnce(terminal))


def needs_shared(relative: str) -> pytest.MarkDecorator:
    """Skip where the file or folder of reference material is absent, as in a user's clone."""
    return pytest.mark.skipif(not (SHARED / relative).exists(), reason=f"reference material {relative} is not here")


def in_fork(action: Callable[[], object]) -> int:
    """Run an action in a forked process, and return its exit code: 0 without an error."""
    return in_forks([action])[0]


def in_forks(actions: Sequence[Callable[[], object]]) -> list[int]:
    """Run actions at the same time, each in a forked process, and return the exit codes."""
    started = [_fork(action) for action in actions]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]


def _fork(action: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads, from Python 3.12 on
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)  # the threads of the parent are not there
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def no_room_for_files_over(size: int):
    """As on a disk that fills up: files can't grow beyond a size in bytes."""
    import resource  # only on POSIX

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def load_weight_rule():
    """The module that regenerates reference weights, images and targets."""
    path = SHARED / "reference" / "weights.py"
    spec = importlib.util.spec_from_file_location("reference_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keep remembered headers and unpacked images of tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks():
    """Files of tests need not outlive a loss of power; waiting for the disk would take most of the time of many tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def weight_rule():
    return load_weight_rule()


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, {"train": 48, "val": 11}, seed=3)
    return root


@pytest.fixture
def tiny_settings() -> ModelSettings:
    """The demo's network: trains and runs in moments."""
    return load_settings("conditional-detr_tiny_shapes").model.resolved()


@pytest.fixture
def tiny_model(tiny_settings):
    torch.manual_seed(0)
    return build_model(tiny_settings, len(SHAPES))


@pytest.fixture
def quick_run(shapes_root, tmp_path) -> Settings:
    """Settings of a run of seconds: 6 steps an epoch, 2 epochs, with dropout so that random states matter."""
    return load_settings(
        "conditional-detr_tiny_shapes",
        [
            f"data.root={shapes_root}",
            f"train.output={tmp_path}",
            "train.name=run",
            "train.batch_size=8",
            "train.base_batch_size=8",
            "train.epochs=2",
            "train.warmup_steps=2",
            "train.query_groups=1",
            "train.log_every=2",
            "model.dropout=0.1",
            "evaluation.every=1",
            "evaluation.report=false",  # it takes longer than such a run
            "data.workers=0",
        ],
    )


@pytest.fixture(scope="session")
def browser():
    """A Chromium without a window: that of ``CDETR_CHROMIUM``, or the one on the path."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CDETR_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium here")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        opened = started.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()
