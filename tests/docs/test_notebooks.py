"""The notebooks run from the first to the last cell, on little data, and are kept without outputs."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, SMALL

FOLDER = ROOT / "notebooks"
SETTINGS = [*(f"{key}={value}" for key, value in SMALL.items()), "train.steps=3"]
PARAMETERS = {
    "fine_tune": f'DATA = ""\nSCENES = "--images 8 --val-images 4 --size 96 --workers 0"\nCHANGES = {SETTINGS}',
    "attention": 'DETECTOR = "starter:tiny"\nIMAGE = ""',
}
SAYS = {
    "fine_tune": ["starting from starter:lite0", "page.jpg", "report"],
    "attention": ["detections, heads, rows, columns: 1 4", "head 4: (", "layer 2: as spread as over"],
}


def read(name: str):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_each_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_holds_no_outputs(name):
    """An output of one machine would be taken for a promise, and makes changes unreadable."""
    for cell in read(name).cells:
        assert not cell.get("outputs"), cell.source
        assert cell.get("execution_count") is None, cell.source


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_runs(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    book = read(name)
    tags = [cell.metadata.get("tags", []) for cell in book.cells]
    assert tags.count(["install"]) == tags.count(["parameters"]) == 1
    for cell, tag in zip(book.cells, tags, strict=True):
        if tag == ["install"]:
            assert cell.source.startswith("%pip install")
            cell.source = ""
        elif tag == ["parameters"]:
            cell.source = PARAMETERS[name]
        elif cell.cell_type == "code" and "!cdetr" in cell.source:
            cell.source += "\nassert globals().get('_exit_code', 0) == 0"  # a command that fails is no error of a cell
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    runtime = tempfile.mkdtemp()  # sockets can't have long paths
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", runtime)
    monkeypatch.setenv("IPYTHONDIR", runtime)
    try:
        nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
    printed = "".join(each.get("text", "") for cell in book.cells for each in cell.get("outputs", []))
    for words in SAYS[name]:
        assert words in printed
    pictures = [1 for cell in book.cells for each in cell.get("outputs", []) if "image/png" in each.get("data", {})]
    assert pictures
