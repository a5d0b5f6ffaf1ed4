"""Lines of metrics.jsonl: what a kill cut short is left out, and what else is no record is told once."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conditional_detr.metrics_file import LONGEST_LINE, read_records
from conditional_detr.runs import RunFolder, read_metrics

TRAIN = {"kind": "train", "step": 10, "epoch": 1.0, "loss": 2.5, "lr": 1e-4}
EVALUATION = {
    "kind": "evaluation",
    "step": 10,
    "epoch": 1.0,
    "AP": 0.25,
    "AP50": 0.5,
    "seconds": 3.5,
    "per_class": {"a": 0.25},
}
RESUME = {"kind": "resume", "step": 10}
CUT = b'{"kind": "train", "step": 20, "epo'


def lines(*records: object) -> bytes:
    """Return lines of a file. Bytes are taken as they are."""
    return b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in records) + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        lines(TRAIN, EVALUATION).removesuffix(b"\n"),
        lines(TRAIN, EVALUATION).replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + lines(TRAIN, EVALUATION),
        lines(TRAIN, b"", EVALUATION, b"  ", b""),
        lines(TRAIN, EVALUATION) + CUT,
        lines(TRAIN, EVALUATION) + b"{",
        lines(TRAIN, CUT, RESUME, EVALUATION),
        lines(TRAIN, CUT, b'{"kind": "resu', RESUME, EVALUATION),  # a kill while the resume was written
        lines(TRAIN, {"kind": "note", "text": "of another program"}, {"kind": "train2", "step": -1}, EVALUATION),
    ],
    ids=repr,
)
def test_what_is_usual_is_read_without_a_word(content, tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    assert read_metrics(tmp_path / "metrics.jsonl") == [TRAIN, EVALUATION]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (CUT, r"Unterminated string starting at \(column 31\)"),
        (b"what", r"Expecting value \(column 1\)"),
        (b"\xff\xfe\x00", "it is not text in UTF-8"),
        (b"\0" * 100, r"Expecting value \(column 1\)"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"[1]", "it has no kind"),
        (b"3", "it has no kind"),
        (b"{}", "it has no kind"),
        ({"kind": 3}, "it has no kind"),
        ({"kind": "train"}, "it has no step"),
        ({"kind": "resume"}, "it has no step"),
        ({**TRAIN, "step": -1}, "step is -1"),
        ({**TRAIN, "step": 10.0}, r"step is 10\.0"),
        ({**TRAIN, "step": True}, "step is true"),
        ({**TRAIN, "step": "10"}, 'step is "10"'),
        ({**TRAIN, "step": 10**400}, "step is 1000"),
        ({**TRAIN, "step": 9}, "its step 9 comes after step 10"),
        ({**TRAIN, "loss": None}, "loss is null"),
        ({**TRAIN, "loss": float("nan")}, r"NaN is no number in JSON, at the key 'loss' \(column 53\)"),
        ({**TRAIN, "epoch": 1e300}, r"epoch is 1e\+300"),
        ({**EVALUATION, "AP": 37.5}, r"AP is 37\.5"),
        ({**EVALUATION, "AP": "0.4"}, r'AP is "0\.4"'),
        ({**EVALUATION, "AP": -0.5, "AP50": -2}, "AP50 is -2"),
        ({**EVALUATION, "seconds": -1}, "seconds is -1"),
        ({key: EVALUATION[key] for key in ("kind", "step", "epoch", "AP50")}, "it has no AP"),
        (b'{"kind": "train", "step": 10, "step": 11, "epoch": 1, "loss": 1}', "the key 'step' is given twice"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_record_is_told_once(line, reason, tmp_path, caplog):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(lines(TRAIN, line, EVALUATION))
    for _ in range(2):
        assert read_metrics(file) == [TRAIN, EVALUATION]
    (text,) = caplog.messages
    assert re.search(rf"metrics\.jsonl: left out line 2, which is no record of a run \({reason}.*\)$", text), text
    assert "\n" not in text
    assert len(text) < len(str(file)) + 200


def test_the_first_is_named_and_all_are_counted(tmp_path, caplog):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(lines(b"what", TRAIN, CUT, b"[]", TRAIN) + CUT)
    assert read_metrics(file) == [TRAIN, TRAIN]
    (text,) = caplog.messages
    assert re.search(r"left out line 1, .*\(Expecting value.*\), and 2 more$", text)


@pytest.mark.parametrize("line", [b"\x89PNG", b'{"kind": "train", "step": NaN}', b'{"kind": "train"}'])
def test_a_damaged_line_at_the_end_is_not_always_one_of_a_kill(line, tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_bytes(lines(TRAIN) + line)
    assert read_metrics(tmp_path / "metrics.jsonl") == [TRAIN]
    assert "left out line 2" in caplog.text


def test_lines_of_any_length_take_no_memory(tmp_path, caplog):
    file = tmp_path / "metrics.jsonl"
    with file.open("wb") as stream:
        stream.write(lines(TRAIN))
        stream.seek(5 * LONGEST_LINE, 1)
        stream.write(b"\n" + lines(EVALUATION))
    assert read_metrics(file) == [TRAIN, EVALUATION]
    assert f"left out line 2, which is no record of a run (it is longer than {LONGEST_LINE} bytes)" in caplog.text


def test_what_is_no_file_has_no_records(tmp_path):
    assert read_records(tmp_path / "none") == []
    assert read_records(tmp_path) == []
    (tmp_path / "empty").touch()
    assert read_records(tmp_path / "empty") == []


def test_what_a_run_writes_is_read(tmp_path):
    run = RunFolder(tmp_path)
    for record in (
        TRAIN,
        {**EVALUATION, "AP": -1.0, "AP50": -1.0},
        {"kind": "train", "step": 11, "epoch": 1.1, "loss": 0},
    ):
        run.append(record)
    assert [record["step"] for record in read_metrics(run.metrics)] == [10, 10, 11]


VALUES = (
    st.sampled_from([None, True, -1, 0, 3, 0.5, 1e300, 10**400, "x", [], {}, float("nan")])
    | st.integers()
    | st.floats()
)
RECORDS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["train", "evaluation", "resume", "other"])},
    optional={
        key: VALUES | st.sampled_from([0, 0.25, 1]) for key in ("step", "epoch", "loss", "AP", "AP50", "seconds")
    },
)
CONTENTS = st.lists(
    RECORDS.map(lambda record: json.dumps(record).encode())
    | st.sampled_from([json.dumps(each).encode() for each in (TRAIN, EVALUATION, RESUME)])
    | st.sampled_from([CUT, b"{", b"", b"\r", b"\0", b"\xff", b"[]"])
    | st.binary(max_size=10),
    max_size=8,
).map(b"\n".join)


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(CONTENTS)
def test_any_file_is_read(tmp_path, content):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(content)
    for record in read_metrics(file):
        json.dumps(record, allow_nan=False)
        assert record["kind"] in ("train", "evaluation")
        assert record["step"] >= 0
        assert record["epoch"] >= 0
