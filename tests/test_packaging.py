"""What packages the project for others says the same everywhere."""

import re

import yaml

from tests.docs.blocks import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text()


def project_list(key: str) -> list[str]:
    """A list of strings of pyproject.toml, read without tomllib, which Python 3.10 does not have."""
    return re.findall(r'"([^"]*)"', re.search(rf"^{key} = \[(.*?)^\]", PROJECT, re.M | re.S)[1])


def test_versions_agree():
    version = re.search(r'^version = "(.*)"$', PROJECT, re.M)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())["package"]["version"] == version
    assert f"## {version.partition('.dev')[0]} (" in (ROOT / "CHANGELOG.md").read_text()


def test_conda_needs_what_pip_needs():
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    wanted = {
        re.sub(r"^[\w-]+", lambda name: names.get(name[0], name[0]), each) for each in project_list("dependencies")
    }
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    given = {each.replace(" ", "") for each in recipe["requirements"]["run"]}
    lowest = re.search(r'^requires-python = "(.*)"$', PROJECT, re.M)[1]
    assert given == wanted | {f"python{lowest}"}


def test_extras_are_named_in_the_readme():
    extras = set(
        re.findall(
            r"^(\w+) = \[",
            PROJECT.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0],
            re.M,
        )
    )
    named = re.search(r'extras, as in ".*?": (.*)', (ROOT / "README.md").read_text())[1].split()
    assert set(named) == extras - {"dev", "docs"}
