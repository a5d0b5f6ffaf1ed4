"""The folder of a batch: what decides its rows, and files that are whole or absent."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from conditional_detr.batch import storage
from conditional_detr.batch.plan import Plan, make_plan, parse_part
from conditional_detr.batch.rows import Row, schema
from conditional_detr.batch.shards import BatchFolder, Counts
from conditional_detr.errors import SettingsError
from conditional_detr.inference.detector import Detector

PLAN = Plan(images=10, inputs="a", shard_size=4, model="m", threshold=0.5, package="1")
ROWS = [Row("a.png", error="it is damaged"), Row("b\udcff.png", error="two")]


@pytest.fixture
def folder(tmp_path) -> BatchFolder:
    made = BatchFolder(str(tmp_path / "out"), PLAN)
    made.begin()
    return made


def test_shards_cover_all_images_once():
    paths = [str(i) for i in range(10)]
    assert PLAN.shards == 3
    assert [each for i in range(PLAN.shards) for each in PLAN.paths_of(i, paths)] == paths
    assert [len(PLAN.range_of(i)) for i in range(PLAN.shards)] == [4, 4, 2]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "/", "-1/4", "1/0", "a/b", "1/4/2", ""])
def test_parts_that_do_not_exist(text):
    if text == "":
        assert parse_part(None) == (1, 1)
        return
    with pytest.raises(SettingsError, match="give I/N"):
        parse_part(text)


def test_every_part_of_an_array_job():
    assert parse_part("2/4") == (2, 4)


def test_a_shard_has_the_columns_and_its_counts(folder):
    assert folder.write(1, ROWS) == Counts(2, 2, 0)
    table = pq.ParquetFile(folder.file_of(1)).read()
    assert table.schema.equals(schema())
    first = table.to_pylist()[0]
    empty = {"boxes": [], "labels": [], "names": [], "scores": []}
    assert first == {"path": "a.png", "width": None, "height": None, **empty, "error": "it is damaged"}
    assert table["path"][1].as_py() == "b\\udcff.png"
    assert folder.done(range(3)) == {1: Counts(2, 2, 0)}
    assert folder.done([0]) == {}
    assert folder.is_done(1)
    assert not folder.is_done(0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"threshold": 0.3}, "threshold 0.5 instead of 0.3"),
        ({"model": "other"}, "another model"),
        ({"shard_size": 5}, "shards of 4 images instead of 5"),
        ({"inputs": "b"}, "other images"),
        ({"images": 11, "inputs": "b"}, "10 images instead of 11 and other images"),
        ({"batch_size": 2}, "batch size 1 instead of 2"),
        ({"optimize": True}, "optimize=False instead of True"),
        ({"thresholds": ((7, 0.5),)}, "other measured thresholds"),
    ],
)
def test_another_plan_is_refused(folder, change, sentence):
    folder.begin()  # the same goes on
    before = Path(folder.address, "plan.json").read_bytes()
    with pytest.raises(SettingsError, match=f"is of a batch with {sentence}; repeat that command, or name another"):
        BatchFolder(folder.address, replace(PLAN, **change)).begin()
    assert Path(folder.address, "plan.json").read_bytes() == before


def test_thresholds_of_categories_are_kept(tmp_path):
    plan = replace(PLAN, threshold="auto", thresholds=((7, 0.5), (0, 0.25)))
    for _ in range(2):
        BatchFolder(str(tmp_path / "out"), plan).begin()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[]", "was not written by cdetr batch"),
        ('{"program": "other"}', "was not written by cdetr batch"),
        ('{"program": "cdetr batch", "version": 2}', "a newer conditional-detr"),
        ('{"program": "cdetr batch"}', "no known version"),
    ],
)
def test_foreign_plans(tmp_path, text, sentence):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(SettingsError, match=sentence):
        BatchFolder(str(tmp_path), PLAN).begin()
    assert (tmp_path / "plan.json").read_text() == text


def test_files_of_others_are_never_replaced(tmp_path, folder):
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(SettingsError, match=r"holds other files, such as mine\.csv"):
        BatchFolder(str(tmp_path), PLAN).begin()
    with pytest.raises(SettingsError, match="is a file"):
        BatchFolder(str(tmp_path / "mine.csv"), PLAN).begin()
    shards = Path(folder.address, "shards")
    shards.mkdir()
    for name in ("mine.parquet", "000003.parquet"):
        (shards / name).write_text("mine")
        with pytest.raises(SettingsError, match=f"{name} is no shard of this batch"):
            folder.finished()
        (shards / name).unlink()
    (shards / "000000.parquet").write_text("mine")
    with pytest.raises(SettingsError, match=r"000000\.parquet is damaged"):
        folder.done(range(3))
    BatchFolder(folder.address, replace(PLAN, model="other")).write(0, ROWS)
    with pytest.raises(SettingsError, match=r"000000\.parquet was not written by this batch"):
        folder.done(range(3))


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "sync", full)
    with pytest.raises(OSError, match=r"No space left.*000001\.parquet"):
        folder.write(1, ROWS)
    assert folder.finished() == set()
    assert list(Path(folder.address, "shards").iterdir()) == []


def test_half_written_files_are_ignored_and_removed(folder):
    folder.write(0, ROWS)
    partial = Path(folder.address, "shards", ".000001.parquet.0.partial")
    partial.write_bytes(b"PAR1")
    assert folder.finished() == {0}
    folder.clean()
    assert not partial.exists()
    assert folder.finished() == {0}


def test_processes_that_begin_at_the_same_time(tmp_path):
    plans = [replace(PLAN, threshold=i / 10) for i in range(8)]

    def begin(plan: Plan) -> bool:
        try:
            BatchFolder(str(tmp_path / "out"), plan).begin()
        except SettingsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, plans)) == 1  # one wins, and the others are refused
        assert sum(pool.map(begin, plans)) == 1
    assert os.listdir(tmp_path / "out") == ["plan.json"]


def test_a_folder_in_a_store():
    folder = BatchFolder("memory://results/one/", PLAN)
    folder.begin()
    folder.begin()
    folder.write(2, ROWS)
    assert folder.done(range(3)) == {2: Counts(2, 2, 0)}
    assert fsspec.filesystem("memory").find("/results/one") == [
        "/results/one/plan.json",
        "/results/one/shards/000002.parquet",
    ]
    with pytest.raises(SettingsError, match="another model"):
        BatchFolder("memory://results/one", replace(PLAN, model="other")).begin()


def test_the_plan_of_a_detector(detector, model):
    plan = make_plan(detector, ["a", "b"], 0.25, shard_size=10)
    assert plan == make_plan(Detector.from_pretrained(model), ["a", "b"], 0.25, shard_size=10)
    assert plan.inputs != make_plan(detector, ["ab"]).inputs
    assert make_plan(detector, ["\udcff"]).images == 1
    with pytest.raises(SettingsError, match="no best thresholds"):
        make_plan(detector, ["a"], "auto")
