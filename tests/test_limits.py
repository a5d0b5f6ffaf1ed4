"""No hostile file of settings, JSON or metrics takes long or fills the memory."""

import json
import subprocess
import sys

import pytest

# Run in a process of its own, whose peak memory is measured. Time is that of the processor, without other programs.
PROGRAM = r"""
import json, os, re, sys, time
from pathlib import Path
from conditional_detr.config import load_settings
from conditional_detr.errors import DataError, InputError
from conditional_detr.files import read_json
from conditional_detr.metrics_file import read_records

folder, told = Path(sys.argv[1]), []

def peak():
    "Return the peak memory in MB. That of getrusage begins with the memory of the parent process."
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def attempt(name, read, content=None, size=None):
    file = folder / name
    if content is not None:
        file.write_bytes(content)
    if size is not None:
        os.truncate(file, size)
    started, before = time.process_time(), peak()
    try:
        read(file)
        result = "read"
    except InputError as error:
        result = str(error)[-300:]
    told.append({"name": name, "seconds": time.process_time() - started, "mb": peak() - before, "result": result})

def bomb(levels, start):
    return "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9) if i else start}]\n" for i in range(levels)).encode()

for name, text in {
    "aliases": bomb(20, "x"), "merges": b"a: &a {b: c}\n" + b"x: {<<: [*a, *a]}\n" * 9000, "list": b"a: [" + b"1," * 120_000 + b"]",
    "flow": b"[" * 260_000, "maps": b"{a: " * 65_000, "blocks": b"- " * 130_000, "keys": b"? " * 130_000, "tags": b"!a " * 80_000,
    "quotes": b"'" * 260_000, "escapes": b'a: "' + b"\\u00e9" * 43_000 + b'"', "anchors": b"".join(b"- &a%d x\n" % i for i in range(12_000)),
    "digits": b"a: " + b"9" * 250_000, "spaces": b" " * 260_000, "lines": b"\n" * 260_000, "long": b"a: '" + b"x" * 255_000 + b"'",
}.items():
    attempt(f"{name}.yaml", load_settings, text)
attempt("sparse.yaml", load_settings, b"a: ", 2**40)
attempt("overrides", lambda _: load_settings("conditional-detr_tiny_shapes", ["train.lr=1"] * 5000))
attempt("value", lambda _: load_settings("conditional-detr_tiny_shapes", ["train.name=" + "x" * 10**7]))

def document(file):
    read_json(file, DataError, "export it again")

for name, text in {
    "arrays": b'{"a": ' + b"[" * 10**6, "objects": b'{"a":' * 10**6, "digits": b'{"a": ' + b"1" * 10**6, "float": b'{"a": ' + b"1" * 10**6 + b".5}",
    "twice": b'{"a": 1' + b', "a": 1' * 10**5 + b"}", "nan": b'{"a": [' + b"1," * 10**6 + b"NaN]}", "halves": b'{"a": "' + b"\\ud800" * 10**6 + b'"}',
    "quotes": b'{"' + b'"' * 10**6, "backslashes": b'{"' + b"\\" * 10**6, "empty": b'{"a": [' + b"{}," * 10**6 + b"{}]}",
}.items():
    attempt(f"{name}.json", document, text)
attempt("brace.json", document, b"{", 2**40)
attempt("zeros.json", document, b"", 2**40)

attempt("line.jsonl", read_records, b'{"kind": "', 2**27)
attempt("zeros.jsonl", read_records, b"\0\n" * 5000)
attempt("deep.jsonl", read_records, (b"[" * 2000 + b"\n") * 300)
attempt("odd.jsonl", read_records, b'{"kind": "train", "step": 1e999}\n' * 3000)
print(json.dumps({"told": told, "peak": peak()}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux does")
def test_hostile_files_take_little_time_and_memory(tmp_path):
    result = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    for each in measured["told"]:
        assert each["seconds"] < 2, each
        assert each["mb"] < 250, each
    assert measured["peak"] < 350
    read = {
        each["name"] for each in measured["told"] if each["result"] == "read" and not each["name"].endswith("jsonl")
    }
    assert read == {"spaces.yaml", "lines.yaml", "overrides", "empty.json"}
