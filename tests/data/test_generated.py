"""Generated data sets are written whole or not at all, and are the same for any number of processes."""

import subprocess
import sys

import pytest

from conditional_detr.config import DataSettings
from conditional_detr.data.generated import write_generated
from conditional_detr.data.reading import read_split
from conditional_detr.errors import DataError, RunError, SettingsError
from tests.data.drawings import NOISE, failing, killed


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_number_of_processes_changes_nothing(tmp_path):
    done = []
    write_generated(tmp_path / "a", NOISE, {"train": 70, "val": 3}, 5)
    objects = write_generated(
        tmp_path / "b", NOISE, {"train": 70, "val": 3}, 5, workers=2, on_image=lambda *numbers: done.append(numbers)
    )
    assert objects == {"train": 140, "val": 6}
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert done == [(i, 73) for i in range(1, 74)]


def test_the_data_set_can_be_read(tmp_path):
    write_generated(tmp_path / "new", NOISE._replace(format="JPEG"), {"train": 2, "val": 1, "test": 1}, 0)
    data = read_split(DataSettings(root=tmp_path / "new"), "train")
    assert data.categories == NOISE.categories
    assert list(data.file_names) == ["000001.jpg", "000002.jpg"]
    assert data.boxes.tolist() == [[1, 2, 3, 4], [0, 0, 16, 16]] * 2
    assert data.areas.tolist() == [12, 256] * 2
    assert len(read_split(DataSettings(root=tmp_path / "new"), "test")) == 1


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="not an empty folder"):
        write_generated(tmp_path, NOISE, {"train": 1}, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("workers", [-1, 100_000])
def test_an_impossible_number_of_workers_is_refused(workers, tmp_path):
    with pytest.raises(SettingsError, match=f"from 0 to 1,024.* got {workers}"):
        write_generated(tmp_path / "new", NOISE, {"train": 1}, 0, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failure_leaves_nothing(workers, tmp_path):
    with pytest.raises(OSError, match="no more pixels"):
        write_generated(tmp_path / "new", NOISE._replace(draw=failing), {"train": 1}, 0, workers=workers)
    assert not list(tmp_path.iterdir())


def test_a_killed_process_is_reported(tmp_path):
    with pytest.raises(RunError, match="was killed"):
        write_generated(tmp_path / "new", NOISE._replace(draw=killed), {"train": 1}, 0, workers=1)
    assert not list(tmp_path.iterdir())


def test_drawing_processes_end_with_the_first_one(tmp_path):
    code = f"""
from pathlib import Path
from conditional_detr.data.generated import write_generated
from tests.data.drawings import NOISE, slow
if __name__ == "__main__":
    write_generated(Path({str(tmp_path / "new")!r}), NOISE._replace(draw=slow), {{"train": 1}}, 0, workers=1)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"drawing\n"
    process.kill()
    assert process.communicate(timeout=30) == (b"", None)  # all that could print have ended
