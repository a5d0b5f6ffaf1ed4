"""The Ray engine on a cluster of two nodes, of which one is killed, and with a driver that is killed."""

import gc
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conditional_detr.batch.plan import make_plan
from conditional_detr.batch.shards import BatchFolder
from conditional_detr.errors import SettingsError
from conditional_detr.inference.detector import Detector
from tests.batch.conftest import files_in, rows, write_photos
from tests.cli.test_commands import cdetr, refused

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's own files and processes
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
COUNT = 24


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, each with one CPU and so one actor."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            made = Cluster(initialize_head=True, head_node_args=node)
        except Exception as error:
            pytest.skip(f"Ray can't start here ({error})")
        made.second = made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        if ray.is_initialized():
            ray.shutdown()
        made.shutdown()
        gc.collect()  # what was left open warns here, and not in the middle of a later test


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("many") / "photos", COUNT)


def shards_in(out: Path) -> int:
    return len(list((out / "shards").glob("0*.parquet")))


def wait_for(condition, process: subprocess.Popen | None = None, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too slow"
        assert process is None or process.poll() is None, "it ended too early"
        time.sleep(0.02)


def check(out: Path, model: Path, photos: Path) -> None:
    """Check that each image has one row, which equals the prediction."""
    found = rows(out)
    files = files_in(photos)
    assert [row["path"] for row in found] == files
    for row, each in zip(found, Detector.from_pretrained(model).predict(files), strict=True):
        assert row["error"] is None
        assert row["labels"] == each.labels.tolist()
        assert row["scores"] == pytest.approx(each.scores.tolist(), abs=1e-5)


def test_a_driver_that_is_killed(cluster, model, many, tmp_path):
    out = tmp_path / "out"
    arguments = ("batch", model, many, "--out", out, "--engine", "ray", "--shard-size", 2, "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "conditional_detr", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: shards_in(out) >= 2, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = shards_in(out)
    result = cdetr(*arguments)
    assert result.returncode == 0, result.stderr
    assert done < COUNT // 2
    summary = json.loads(result.stdout)
    assert (summary["images"], summary["errors"], summary["complete"]) == (COUNT, 0, True)
    assert summary["computed"] <= COUNT - 2 * done
    check(out, model, many)


def test_a_node_that_is_killed(cluster, model, many, tmp_path):
    out = tmp_path / "out"
    killed = []

    def kill() -> None:
        wait_for(lambda: shards_in(out) >= 4)
        cluster.remove_node(cluster.second, allow_graceful=False)
        killed.append(shards_in(out))

    thread = threading.Thread(target=kill)
    thread.start()
    result = cdetr("batch", model, many, "--out", out, "--engine", "ray", "--shard-size", 1)
    thread.join()
    assert result.returncode == 0, result.stderr
    assert killed[0] < COUNT
    check(out, model, many)


def test_what_ray_can_not_do_is_refused(cluster, model, photos, tmp_path):
    good = ("batch", model, photos, "--engine", "ray")
    refused(cdetr(*good, "--out", "memory://ray"), "in the memory of one process; name files that all processes reach")
    refused(
        cdetr(*good, "--out", tmp_path / "out", "--gpus-per-actor", 2),
        r"an actor would need 2 GPUs, and the cluster has 0; give fewer \(here: --gpus-per-actor\)",
    )


def test_an_actor_refuses_another_model(detector, tmp_path):
    from conditional_detr.batch.ray import ShardActor

    plan = make_plan(detector, ["a.png"])
    folder = BatchFolder(str(tmp_path / "out"), plan)

    def starter() -> Detector:
        return Detector.from_pretrained("starter:tiny")

    def gone() -> Detector:
        raise SettingsError("no such model")

    row = {"shard": 0, "paths": ["a.png"]}
    assert "another one than here" in ShardActor(starter, folder, None)(row)["error"]
    assert "can't be opened on a node: no such model" in ShardActor(gone, folder, None)(row)["error"]


def test_a_shard_that_kills_its_process_is_given_up():
    from conditional_detr.batch.ray import Tries

    tries = Tries(3)
    assert [tries.begin(7) for _ in range(4)] == [True, True, True, False]
    assert tries.begin(8)
