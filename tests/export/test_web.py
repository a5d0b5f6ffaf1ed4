"""The file runs in ONNX Runtime Web under Node, with equal results. Skipped where Node or its package can't be had."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from conditional_detr.inference.runtimes.onnxruntime import open_onnx

PACKAGE = "onnxruntime-web@1.30.0"
SCRIPT = Path(__file__).with_name("web.mjs")


@pytest.fixture(scope="module")
def modules(tmp_path_factory) -> Path:
    """A folder in which the package is installed."""
    out = tmp_path_factory.mktemp("node")
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not here")
    command = ["npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", out, PACKAGE]
    try:
        subprocess.run(command, cwd=out, capture_output=True, check=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"{PACKAGE} can't be installed here")
    return out


def test_a_browser_s_runtime_computes_the_same(file, modules):
    pixels = torch.randn(2, 3, 96, 130)
    pixels.numpy().tofile(modules / "pixels")
    command = ["node", SCRIPT, file, "pixels", "2", "96", "130"]
    done = subprocess.run(command, cwd=modules, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), open_onnx(file).runtime(pixels)
    for name, values in (("logits", expected.logits), ("boxes", expected.boxes)):
        assert torch.allclose(torch.tensor(found[name]), values.flatten(), atol=1e-4)
