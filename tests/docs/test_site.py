"""The site builds without a warning, with both builders, and needs nothing from elsewhere when it is read."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.docs.blocks import ROOT


@pytest.mark.parametrize("builder", ["zensical", "mkdocs"])
def test_it_builds(builder, tmp_path):
    for module in (builder, "mkdocstrings_handlers", *(["material"] if builder == "mkdocs" else [])):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (extra [docs])")
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "starters"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    result = subprocess.run(
        [sys.executable, "-m", builder, "build", "--strict", "--clean"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    loaded = re.compile(
        r"""<(?:script|img|iframe)[^>]+src=["']?https?://|<link[^>]+rel=["']?(?:stylesheet|preload|icon)[^>]+https?://"""
    )
    for page in pages:
        assert not loaded.search(page.read_text(encoding="utf-8")), page
    assert "from_pretrained" in (tmp_path / "site" / "reference" / "api.html").read_text(encoding="utf-8")
    for folder in ("src", "docs", "site"):
        shutil.rmtree(tmp_path / folder)
