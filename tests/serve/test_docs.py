"""The examples of docs/serve.md, run against a server."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import encoded

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def example(language: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return next(each for each in blocks if "/v1/detect" in each and "street.jpg" in each)


@pytest.fixture
def street(tmp_path, picture):
    (tmp_path / "street.jpg").write_bytes(encoded(picture, "JPEG"))
    return tmp_path


def printed(command: list[str], folder: Path) -> str:
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_python(live, street):
    with live() as address:
        (street / "client.py").write_text(example("python").replace("http://127.0.0.1:8000", address))
        lines = printed([sys.executable, "client.py"], street).splitlines()
    assert lines
    assert all(each.startswith("object 0.") for each in lines)


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_javascript(live, street):
    with live() as address:
        (street / "client.mjs").write_text(example("js").replace("http://127.0.0.1:8000", address))
        assert printed(["node", "client.mjs"], street).startswith("object 0.")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(live, street):
    with live() as address:
        for line in example("sh").splitlines():
            command = line.replace("http://127.0.0.1:8000", address)
            output = printed(["sh", "-c", command], street)
            assert '"category_name":"object"' in output or "-o found.jpg" in command
    assert (street / "found.jpg").read_bytes().startswith(b"\xff\xd8")
