"""``cdetr serve`` as a process: start, answers, signals, refusals at the start."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from conditional_detr.checkpoints.starters import starter_folder


class Process:
    """A server in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "conditional_detr", "serve", *arguments, "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.address = ""
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if " at http://" in line:
                self.address = line.split(" at ")[1].split(";")[0]
                break
        self._reader = threading.Thread(target=lambda: self.lines.extend(map(str.rstrip, self.process.stderr)))
        self._reader.start()

    def end(self) -> int:
        code = self.process.wait(30)
        self._reader.join(10)
        self.process.stderr.close()
        return code

    def logged(self, words: str, seconds: float = 20) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if any(words in line for line in self.lines):
                return True
            time.sleep(0.02)
        return False


@pytest.fixture
def process():
    started = []

    def start(*arguments):
        started.append(Process(*arguments))
        assert started[-1].address, started[-1].lines
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.end()


def wait_until_ready(address):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    pytest.fail("the server did not become ready")


def test_a_server_answers_logs_reloads_and_stops_without_losing_requests(process, png, tmp_path):
    model = tmp_path / "model"
    model.symlink_to(starter_folder("starter:tiny"))
    server = process(str(model), "--name", "shapes", "--log-format", "json")
    assert "127.0.0.1" in server.address
    wait_until_ready(server.address)
    with httpx.Client(base_url=server.address, timeout=30) as client:
        answer = client.post("/v1/detect", files={"image": png}, headers={"X-Request-ID": "first"})
        assert answer.json()["model"]["name"] == "shapes"
        version = answer.json()["model"]["version"]
        assert server.logged('"request_id": "first"')
        line = next(json.loads(each) for each in server.lines if '"request_id": "first"' in each)
        assert (line["status"], line["path"], line["images"]) == (200, "/v1/detect", 1)

        # Another model takes the place of the first while requests are answered.
        statuses = []
        stop = threading.Event()

        def ask():
            with httpx.Client(base_url=server.address, timeout=30) as own:
                while not stop.is_set():
                    statuses.append(own.post("/v1/detect", files={"image": png}).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        model.unlink()
        model.symlink_to(starter_folder("starter:lite0"))
        server.process.send_signal(signal.SIGHUP)
        assert server.logged("reloaded the model")
        stop.set()
        asking.join()
        assert set(statuses) == {200}
        assert client.post("/v1/detect", files={"image": png}).json()["model"]["version"] != version

        model.unlink()
        server.process.send_signal(signal.SIGHUP)
        assert server.logged("was not reloaded")
        assert client.post("/v1/detect", files={"image": png}).status_code == 200

    # A request whose body is still on its way when the signal comes is answered; a new one is refused.
    host, port = server.address.removeprefix("http://").split(":")
    late = socket.create_connection((host, int(port)))
    head = f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(png)}\r\n\r\n"
    late.sendall(head.encode() + png[:100])
    time.sleep(0.3)
    server.process.send_signal(signal.SIGTERM)
    assert server.logged("1 requests are in flight")
    assert httpx.get(f"{server.address}/v1/model").status_code == 503
    late.sendall(png[100:])
    assert late.recv(100).startswith(b"HTTP/1.1 200")
    late.close()
    assert server.end() == 0


def test_requests_that_do_not_end_are_cut_off_after_the_time_for_them(process, png):
    server = process("starter:tiny", "--drain-seconds", "0.3")
    wait_until_ready(server.address)
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx")
        time.sleep(0.3)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == 0
    assert time.monotonic() - began < 10
    assert any("1 requests were not answered" in line for line in server.lines)


def run(*arguments):
    command = [sys.executable, "-m", "conditional_detr", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_wrong_starts_are_refused_in_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = run("serve", "starter:tiny", "--port", port)
    assert found.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in found.stderr
    for arguments, words in (
        (["serve", str(tmp_path / "none")], "none"),
        (["serve", "starter:tiny", "--host", "203.0.113.7"], "this machine has no address '203.0.113.7'"),
        (["serve", "starter:tiny", "--port", "0", "--name", "a/b"], "--name is 'a/b'"),
        (["serve", "starter:tiny", "--port", "0", "--api-key-file", str(tmp_path / "keys")], "can't be read"),
        (["app", "starter:tiny", "--samples", str(tmp_path)], "holds no images"),
    ):
        found = run(*arguments)
        assert found.returncode == 2, found.stderr
        (line,) = [each for each in found.stderr.splitlines() if each.startswith("error: ")]
        assert words in line
        assert "Traceback" not in found.stderr


def test_a_missing_package_is_named(monkeypatch):
    from conditional_detr.cli import serve
    from conditional_detr.errors import SettingsError

    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(SettingsError, match=r"needs uvicorn: pip install 'conditional-detr\[serve\]'"):
        serve._need_packages()
