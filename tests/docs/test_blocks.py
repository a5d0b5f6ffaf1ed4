"""Every block of the documents that can run is run on little data, and every other one has a reason."""

import contextlib
import io
import shlex
import shutil
from pathlib import Path

import pytest
import typer.main

from conditional_detr.cli.main import app
from conditional_detr.config import load_settings
from tests.cli.test_commands import COMMANDS, cdetr
from tests.docs.blocks import ROOT, blocks, commands, documents, smaller, why_not_run

DONE: set[tuple[str, ...]] = set()  # what has run, on any page
PAGES = [path for path in documents() if any(True for _ in blocks(path))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_run(page, home, monkeypatch):
    """The blocks of a page run one after the other, as a reader would run them."""
    todo = [block for block in blocks(page) if block.reason is None and not block.note.startswith("fault: ")]
    if not any(
        block.language == "python" or any(why_not_run(each) is None for each in commands(block)) for block in todo
    ):
        return
    monkeypatch.chdir(home)
    # Pictures of runs have tests of their own, and would take most of the time.
    monkeypatch.setattr("conditional_detr.training.loop.plot_run", lambda *_: None)
    monkeypatch.setattr("conditional_detr.training.introduction.draw_augmented", lambda *_: None)
    names: dict[str, object] = {}
    for block in todo:
        where = f"{block.page}:{block.line}"
        if block.language == "python":
            code = block.code.replace("layer=6", "layer=2").replace("/data/mine", "mine")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, where, "exec"), names)
            continue
        for command in commands(block):
            if why_not_run(command) is not None:
                continue
            assert command.startswith("cdetr"), (
                f"{where}: {command!r} is neither run nor excused; say why with <!-- not run: ... -->"
            )
            run_once(smaller(command), home, f"{where}: {command}")


def run_once(arguments: list[str], home: Path, where: str) -> None:
    """Run a command, unless another page has run the same one: the run that it would write is then a copy of another."""
    names = [each.removeprefix("train.name=") for each in arguments if each.startswith("train.name=")]
    for name in names:
        shutil.rmtree(home / "runs" / name, ignore_errors=True)
    kind = tuple(each for each in arguments if not each.startswith("train.name="))
    if kind in DONE and arguments[0] != "dataset":
        for name in names:
            shutil.copytree(home / "runs" / "detr", home / "runs" / name)
        return
    result = cdetr(*arguments, cwd=home)
    assert result.returncode == 0, f"{where}\n{result.stdout}{result.stderr}"
    DONE.add(kind)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_parse(page):
    """Options and settings exist, also in commands that are not run."""
    root = typer.main.get_command(app)
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, f"{block.page}:{block.line}", "exec")
            continue
        for line in commands(block):
            words = shlex.split(line)
            if words[0] != "cdetr":
                continue
            parse(root, words[1:], f"{block.page}:{block.line}")
            placeholders = {"PRESET", "PRESET|FILE", "CHANGE", "--resume", *(word for word in words if "$" in word)}
            if (
                words[1] == "train"
                and "=" in line
                and not placeholders & set(words)
                and not block.note.startswith("fault: ")
            ):
                load_settings(words[2], [word for word in words[3:] if "=" in word])


def parse(root, words: list[str], where: str) -> None:
    """Let typer parse the arguments of a command without running it."""
    command, name = root, ""
    while words and words[0] in getattr(command, "commands", {}):
        command, name, words = command.commands[words[0]], f"{name} {words[0]}".strip(), words[1:]
    if name:
        assert name in COMMANDS, where
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"-h", "--help"}
    known |= {"--install-completion", "--show-completion"}
    given = {word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 1}
    assert given <= known, f"{where}: cdetr {name} has no {given - known}"


def test_a_block_without_a_reason_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.docs.blocks.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```sh\ncdetr train x\nrm -rf /\n```\n\n<!-- not run: downloads COCO -->\n```sh\nwget coco\n```\n")
    first, second = blocks(page)
    assert [why_not_run(each) for each in commands(first)] == [None, None]
    assert first.reason is None
    assert second.reason == "not run: downloads COCO"
