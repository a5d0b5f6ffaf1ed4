"""Atomic writes: a file is complete or absent, with the mode of other new files. Whatever a JSON file holds, reading it ends."""

import errno
import gzip
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from conditional_detr import files
from conditional_detr.errors import DataError
from conditional_detr.files import is_free, read_json, whole_file, whole_folder, write_text
from tests.conftest import in_fork
from tests.test_strict_json import TEXTS


@pytest.fixture(params=[0o022, 0o077, 0o002])
def usual(request):
    """The mode that a new file has with this umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_modes_follow_the_umask(usual, tmp_path):
    with whole_file(tmp_path / "model.safetensors") as partial:
        save_file({"x": torch.zeros(1)}, partial)
    write_text(tmp_path / "config.json", "{}")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "model.safetensors": usual,
        "config.json": usual,
    }


def test_a_failure_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "x", "before")
    with pytest.raises(TypeError), whole_file(tmp_path / "x") as partial:
        partial.write_text(3)
    assert (tmp_path / "x").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def refusal(file: Path) -> str:
    """Return the sentence that refuses a JSON file, which takes no time."""
    started = time.process_time()
    with pytest.raises(DataError) as caught:
        read_json(file, DataError, "export it again")
    assert time.process_time() - started < 2
    assert str(caught.value).startswith(f"{file} ")
    assert str(caught.value).endswith("; export it again")
    return str(caught.value).removeprefix(f"{file} ").removesuffix("; export it again")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "must hold a JSON object, but it is empty"),
        (b"\xef\xbb\xbf \r\n", "must hold a JSON object, but it is empty"),
        (b"[1, 2]", "must hold a JSON object, but it begins with '[1, 2]'"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "must hold a JSON object, but it begins with 'version https://git-'",
        ),
        (gzip.compress(b"{}", mtime=0), "must hold a JSON object, but it is compressed"),
        (b"\0" * 5000, r"must hold a JSON object, but it begins with '\x00\x00"),
        (b'{"a": 1,\r\n}', "is not valid JSON (Expecting property name enclosed in double quotes (line 2, column 1))"),
        (b'{"a": [1, 2', "is not valid JSON (Expecting ',' delimiter (line 1, column 12))"),
        (b'{"a": NaN}', "is not valid JSON (NaN is no number in JSON, at the key 'a' (line 1, column 7))"),
        (b'{"a": 1, "a": 2}', "is not valid JSON (the key 'a' is given twice (line 1, column 10))"),
        (b'{"a":' * 200_000, "is not valid JSON (it is nested too deeply)"),
        ('{"a": "é"}'.encode("latin-1"), "is not valid JSON (byte 8 is not text in utf-8)"),
        (b'{"a": "\xed\xa0\x80"}', "is not valid JSON (byte 8 is not text in utf-8)"),
        ('{"a": 1}'.encode("utf-16")[:-1], "is not valid JSON (byte 17 is not text in utf-16"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_files_that_are_no_json_object_are_refused(content, sentence, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    assert refusal(tmp_path / "x.json").startswith(sentence)


def test_what_is_no_readable_file_is_refused(tmp_path):
    assert refusal(tmp_path / "none.json") == "can't be read (No such file or directory)"
    assert refusal(tmp_path) == "can't be read (it is not a file)"
    assert refusal(Path("a\0b")).startswith("can't be read")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        assert refusal(tmp_path / "pipe.json") == "can't be read (it is not a file)"
    if Path("/dev/zero").exists():
        assert refusal(Path("/dev/zero")) == "can't be read (it is not a file)"
    if os.name == "posix" and os.geteuid() != 0:
        (tmp_path / "mine.json").touch(0o000)
        assert refusal(tmp_path / "mine.json") == "can't be read (Permission denied)"


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="the memory of the machine is not known here")
def test_files_larger_than_the_memory_are_not_read(tmp_path):
    for start, sentence in ((b"{", "can't be read (its 1024 GiB need more memory"), (b"[", "must hold a JSON object")):
        (tmp_path / "x.json").write_bytes(start)
        os.truncate(tmp_path / "x.json", 2**40)  # the file system stores one byte of it
        assert refusal(tmp_path / "x.json").startswith(sentence)


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are those of Linux")
def test_too_little_memory_is_told(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"a": "')
    os.truncate(tmp_path / "x.json", 2**29)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from conditional_detr.errors import DataError; from conditional_detr.files import read_json\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))\n"
        "try: read_json(Path(sys.argv[1]), DataError, 'split it')\n"
        "except DataError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program, tmp_path / "x.json"], capture_output=True, text=True)
    assert result.stdout == f"{tmp_path / 'x.json'} takes more memory than this process has; split it\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_json(encoding, tmp_path):
    (tmp_path / "x.json").write_bytes(json.dumps({"a": "雪😀"}, ensure_ascii=False).encode(encoding))
    assert read_json(tmp_path / "x.json", DataError, "") == {"a": "雪😀"}


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=30) | TEXTS.map(lambda text: f'{{"a": {text}}}'.encode(errors="surrogatepass")))
def test_any_file_is_read_or_refused(tmp_path, content):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    sentence = None
    try:
        assert isinstance(read_json(file, DataError, "export it again"), dict)
    except DataError as error:
        sentence = str(error)
    if sentence is not None:
        assert sentence.startswith(f"{file} ")
        assert "\n" not in sentence


def test_a_file_is_on_disk_before_its_name_is(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(
        "os.fsync", lambda file: events.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
    )
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda *paths: (events.append("rename"), replace(*paths)))
    write_text(tmp_path / "x", "text")
    assert events == ["file", "rename", "folder"]


def test_a_file_system_that_can_not_sync_folders_is_no_error(tmp_path, monkeypatch):
    def sync(file):
        raise OSError(errno.EINVAL if stat.S_ISDIR(os.fstat(file).st_mode) else errno.EIO, "no")

    monkeypatch.setattr("os.fsync", sync)
    files.sync(tmp_path)
    (tmp_path / "x").touch()
    with pytest.raises(OSError, match="no") as caught:
        files.sync(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the limit stays with the process")
def test_a_full_disk_is_an_error_with_the_name_of_the_file(tmp_path):
    """A limit on the size of files stands for a full disk."""

    def write() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for name in ("text", "tensors"):
            with pytest.raises(OSError, match="File too large") as caught, files.whole_file(tmp_path / name) as partial:
                partial.write_bytes(bytes(2000)) if name == "text" else save_file({"x": torch.zeros(1000)}, partial)
            assert caught.value.filename == str(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    assert in_fork(write) == 0


def write_parts(out, error=None):
    with whole_folder(out) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "x").write_text("x")
        (partial / "y").write_text("y")
        assert not (out / "y").exists()
        if error:
            raise error


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_is_whole_or_not_there(tmp_path, existed):
    out = tmp_path / "new" / "out"
    if existed:
        out.mkdir(parents=True)
    for error in (KeyboardInterrupt, OSError):
        with pytest.raises(error):
            write_parts(out, error)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        assert out.exists() == existed
    write_parts(out)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) == ["sub", "sub/x", "y"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("existed", [True, False])
def test_what_a_killed_program_left_of_a_folder_is_replaced(tmp_path, existed):
    out = tmp_path / "out"
    left = out / ".partial" if existed else tmp_path / ".out.partial"
    (left / "old").mkdir(parents=True)
    assert is_free(out)
    write_parts(out)
    assert sorted(path.name for path in out.iterdir()) == ["sub", "y"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not is_free(out)
    (tmp_path / "link").symlink_to("nowhere")
    assert not is_free(tmp_path / "link")
    assert not is_free(out / "y")


def test_a_folder_that_can_not_be_moved_in_whole_is_emptied_again(tmp_path, monkeypatch):
    moves = []

    def replace(source, target):
        if moves:
            raise OSError(5, "broken", str(target))
        moves.append(target)
        shutil.move(source, target)

    monkeypatch.setattr(os, "replace", replace)
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="broken"):
        write_parts(tmp_path / "out")
    assert moves
    assert list((tmp_path / "out").iterdir()) == []
