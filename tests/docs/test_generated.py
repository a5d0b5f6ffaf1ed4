"""Generated pages are up to date, and say everything."""

import importlib.util
import inspect
import re
import sys
from importlib import metadata

import pytest
import typer

import conditional_detr
from conditional_detr import Detector
from conditional_detr.config import setting_fields
from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def scripts():
    """The modules of scripts/docs, by name."""
    folder = ROOT / "scripts" / "docs"
    sys.path.insert(0, str(folder))
    try:
        found = {}
        for name in ("settings_page", "commands_page", "licenses_page", "generate"):
            spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            found[name] = module
        yield found
    finally:
        sys.path.remove(str(folder))


def test_pages_are_up_to_date(scripts):
    tested = dict(re.findall(r"^(.*)==(.*)$", (ROOT / "constraints.txt").read_text(), re.M))
    outdated = {path.name for path in scripts["generate"].outdated()}
    if typer.__version__ != tested["typer"]:
        outdated.discard("command-line.md")  # each version of typer describes options in words of its own
    installed = {each.name.replace("_", "-"): each.version.partition("+")[0] for each in metadata.distributions()}
    if any(installed.get(name.replace("_", "-")) != version for name, version in tested.items()):
        outdated.discard("licenses.md")  # other versions need other packages
    assert not outdated, "run: python scripts/docs/generate.py"


def test_licenses_go_with_apache(scripts):
    rows = scripts["licenses_page"].licenses()
    assert {name for name, (_, needed) in rows.items() if needed == "always"} > {"torch", "numpy", "pillow", "typer"}
    assert not scripts["licenses_page"].refused(rows)
    assert rows.get("av", ("", ""))[1] != "always"  # its wheels contain GPL libraries


@pytest.mark.parametrize(
    "terms", ["AGPL-3.0", "GNU General Public License v3 (GPLv3)", "GPL-2.0-or-later", "not named"]
)
def test_a_license_that_does_not_is_refused(scripts, terms):
    assert scripts["licenses_page"].refused({"a": (terms, "always"), "b": ("LGPL-3.0", "always")}) == {"a": terms}


def test_every_number_has_a_unit(scripts):
    units = [key for keys in scripts["settings_page"].UNITS.values() for key in keys]
    assert sorted(units) == sorted(scripts["settings_page"].numeric_settings())


def test_every_setting_is_described(scripts):
    page = scripts["settings_page"].page()
    for key in setting_fields():
        row = re.search(rf"^\| `{re.escape(key)}` \| (.*) \|$", page, re.M)
        assert row, key
        assert all(cell.strip() for cell in re.split(r"(?<!\\)\|", row[1])), key


def test_bounds_are_those_of_the_settings(scripts):
    page = scripts["settings_page"].page()
    for line in (
        "| `train.lr` | learning rate of everything but the backbone | number | per step | from 0 to 1,000,000,000 | `0.0001` |",
        "| `model.queries` | number of object queries, which limits the objects found in an image | whole number | queries | above 0 to 100,000 | `300` |",
    ):
        assert line in page


def names_on_the_api_page() -> list[str]:
    return re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "reference" / "api.md").read_text(), re.M)


def test_the_api_page_has_every_public_name():
    shown = [path.rpartition(".")[2] for path in names_on_the_api_page()]
    assert set(conditional_detr.__all__) <= set(shown)
    assert len(shown) == len(set(shown))


def test_paths_on_the_api_page_exist():
    for path in names_on_the_api_page():
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        assert found.__module__ == module, path
        if name in conditional_detr.__all__:
            assert getattr(conditional_detr, name) is found


PUBLIC = [(name, getattr(conditional_detr, name)) for name in conditional_detr.__all__]
METHODS = [
    (f"Detector.{name}", value.fget if isinstance(value, property) else getattr(value, "__func__", value))
    for name, value in vars(Detector).items()
    if not name.startswith("_")
]


@pytest.mark.parametrize(("name", "value"), [*PUBLIC, *METHODS], ids=lambda each: each if isinstance(each, str) else "")
def test_public_names_are_documented(name, value):
    """There is a docstring of its own, and functions say what each argument is, or where that is said."""
    text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    assert text, name
    assert len(text.split()) > 4, name
    if not inspect.isclass(value):
        arguments = [each for each in inspect.signature(value).parameters if each not in ("self", "cls")]
        known = set(re.findall(r"\w+", text))
        if "Arguments are those of" not in text:
            missing = [each for each in arguments if each not in known]
            assert not missing, f"{name}: its docstring does not name {missing}"
