"""Two nodes of torchrun, as two agents on loopback: one of them is lost, and the job goes on to the same end."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conditional_detr.runs import RunFolder, read_metrics
from tests.training.test_loop import changed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are killed by a signal")
SECONDS = 240
# Otherwise torchrun (2.13) gives a node that joins a restarted job no address, and both wait for each other (docs/cluster.md).
SHARING = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


class Nodes:
    """A job of two nodes with a process each."""

    def __init__(self, config: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        self.config, self.folder = config, folder
        self.agents: list[subprocess.Popen[bytes]] = []
        self.start()
        self.wait_for_host()
        self.start()

    def start(self) -> None:
        """Start an agent."""
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", self.endpoint, "--rdzv-id", "job", "--max-restarts", "3"),
            *("-m", "conditional_detr.cli.main", "train", str(self.config), "train.resume=auto"),
        ]
        log = self.folder / f"agent-{len(self.agents)}.log"
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **SHARING}
        with log.open("wb") as file:
            self.agents.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment))

    def wait_for_host(self) -> None:
        """Wait until the first agent listens. The node that hosts the rendezvous is the one that must not be lost."""
        host, port = self.endpoint.split(":")
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            with socket.socket() as trial:
                if trial.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.1)
        pytest.fail(self.logs())

    def lose(self, agent: int) -> None:
        """Kill an agent and its processes, as when a node fails."""
        _kill(self.agents[agent])

    def end(self) -> list[int]:
        """Return the exit codes of all agents."""
        return [each.wait(SECONDS) for each in self.agents]

    def logs(self) -> str:
        return "\n".join(each.read_text(errors="replace")[-3000:] for each in sorted(self.folder.glob("agent-*.log")))


def _kill(agent: "subprocess.Popen[bytes]") -> None:
    found = psutil.Process(agent.pid)
    for each in [found, *found.children(recursive=True)]:  # which torchrun starts in sessions of their own
        each.kill()
    agent.wait()


def test_a_job_that_loses_a_node_ends_like_an_undisturbed_one(quick_run, tmp_path):
    settings = changed(quick_run, train={"epochs": 4, "batch_size": 4, "log_every": 1})
    runs = {}
    for name, disturbed in (("undisturbed", False), ("disturbed", True)):
        config, folder = tmp_path / f"{name}.yaml", tmp_path / f"{name}-logs"
        folder.mkdir()
        config.write_text(changed(settings, train={"name": name}).to_yaml())
        runs[name] = run = RunFolder(tmp_path / name)
        nodes = Nodes(config, folder)
        try:
            if disturbed:
                until = time.monotonic() + SECONDS
                while run.newest_state() is None:
                    assert time.monotonic() < until, nodes.logs()
                    time.sleep(0.05)
                nodes.lose(1)
                nodes.start()
            codes = nodes.end()
        finally:
            for agent in nodes.agents:
                if agent.poll() is None:
                    _kill(agent)
        assert codes == ([0, -signal.SIGKILL, 0] if disturbed else [0, 0]), nodes.logs()
    one, other = (
        [
            {key: value for key, value in line.items() if "second" not in key and key != "data_wait"}
            for line in read_metrics(each.metrics)
        ]
        for each in runs.values()
    )
    assert one == other
    assert one[-1]["kind"] == "evaluation"
