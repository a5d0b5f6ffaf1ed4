"""Which images the inputs of a batch name: sorted, each once, or one sentence that says what is wrong."""

import io
import os
import re
import sys
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conditional_detr.batch.listing import list_images
from conditional_detr.errors import DataError, InputError, SettingsError
from tests.batch.conftest import COUNT, files_in, tar_of


def test_folders_patterns_and_files(photos, monkeypatch):
    (photos / "labels.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    images = [each for each in files_in(photos) if each.endswith(".png")]
    assert len(images) == COUNT
    assert list_images([str(photos)]) == images
    assert list_images([f"file://{photos}"]) == images
    assert list_images([f"{photos}/**/*.png"]) == images
    (photos / "README").write_text("no image")
    assert list_images([f"{photos}/**/*"]) == images  # without folders and other files
    assert list_images([f"{photos}/*"]) == images  # with the images of folders, without other files
    assert list_images([str(photos), f"{photos}/more", images[0]]) == images
    monkeypatch.chdir(photos.parent)
    assert list_images(["photos"]) == images


def test_a_link_to_a_folder_is_not_followed(photos):
    os.symlink(photos, photos / "more" / "round")
    assert len(list_images([str(photos)])) == COUNT


def test_lists_of_paths(photos, tmp_path, monkeypatch):
    images = files_in(photos)
    monkeypatch.chdir(tmp_path)
    relative = [os.path.relpath(each, tmp_path) for each in images]
    (tmp_path / "list.txt").write_bytes("\r\n".join([*reversed(relative), "", relative[0], ""]).encode("utf-8-sig"))
    assert list_images(["list.txt"]) == images
    pq.write_table(pa.table({"path": [*images, "s.png"], "id": range(COUNT + 1)}), tmp_path / "list.parquet")
    assert list_images([str(tmp_path / "list.parquet")]) == sorted([*images, str(tmp_path / "s.png")])
    assert list_images([str(tmp_path / "*.parquet")]) == list_images([str(tmp_path / "list.parquet")])


def test_tars(photos, tmp_path):
    tar = tar_of(photos, tmp_path / "a.tar")
    expected = [f"{tar}!{i:03}.png" for i in range(COUNT)]
    assert list_images([str(tar)]) == expected
    assert list_images([str(tmp_path / "*.tar")]) == expected
    assert list_images([expected[3]]) == expected[3:4]


def test_stores(photos, tmp_path):
    system = fsspec.filesystem("memory")
    for file in files_in(photos):
        system.pipe_file(f"/bucket{file.removeprefix(str(photos))}", b"image")
    system.pipe_file("/bucket/list.txt", b"memory://bucket/000.png\n")
    system.put_file(str(tar_of(photos, tmp_path / "a.tar")), "/tars/a.tar")
    expected = sorted(f"memory://bucket{file.removeprefix(str(photos))}" for file in files_in(photos))
    assert list_images(["memory://bucket"]) == expected
    assert list_images(["memory://bucket/"]) == expected
    assert list_images(["memory://bucket/**/*.png"]) == expected
    assert list_images(["memory://bucket/**/*"]) == expected
    assert list_images(["memory://bucket/list.txt"]) == ["memory://bucket/000.png"]
    assert list_images(["memory://tars/*.tar"]) == [f"memory://tars/a.tar!{i:03}.png" for i in range(COUNT)]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("nothing", None, "nothing does not exist; correct the path"),
        ("*.png", None, r"\*.png names no images"),
        ("empty.txt", b"\n \n", "names no images"),
        ("latin.txt", b"a.png\n\xe9.png\n", "line 2 is not text in UTF-8"),
        ("damaged.parquet", b"PAR1", "damaged or no Parquet file"),
        ("damaged.tar", b"no tar" * 200, "damaged or is no tar"),
        ("a.tar.gz", b"", "compressed tar"),
    ],
)
def test_what_names_no_images_is_refused(name, content, sentence, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        list_images([str(tmp_path / name)])


def test_damaged_pages_of_a_list(tmp_path):
    """pyarrow raises ``OSError`` for them, without the name of the file."""
    pq.write_table(pa.table({"path": [f"{i}.png" for i in range(1000)]}), tmp_path / "list.parquet")
    content = bytearray((tmp_path / "list.parquet").read_bytes())
    content[4:60] = b"\xff" * 56
    (tmp_path / "list.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.parquet is damaged"):
        list_images([str(tmp_path / "list.parquet")])


@pytest.mark.parametrize("kind", ["pax size", "sparse", "sparse map", "longer", "twice"])
def test_odd_tars_are_one_sentence(kind, tmp_path):
    """Their members can't be read by place and length."""
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as opened:
        headers = {"pax size": {"size": "-99999"}, "sparse map": {"GNU.sparse.map": "1,x,3"}}
        member = tarfile.TarInfo("a.png")
        member.size, member.pax_headers = 100, headers.get(kind, {})
        opened.addfile(member, io.BytesIO(bytes(100)))
        if kind == "twice":
            opened.addfile(member, io.BytesIO(bytes(100)))
    content = bytearray(file.read_bytes())
    if kind in ("longer", "sparse"):
        if kind == "longer":
            content[124:136] = b"77777777777\0"
        else:
            content[156:157] = b"S"
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar is damaged"):
        list_images([str(file)])


def test_other_refusals(photos, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SettingsError, match="names no images"):
        list_images([str(photos), str(tmp_path / "folder")])
    for address in ("memory://nowhere", "memory://nowhere/*.png"):
        with pytest.raises(SettingsError, match=r"does not exist|names no images"):
            list_images([address])
    with pytest.raises(SettingsError, match="another protocol of fsspec"):
        list_images(["nothing://bucket"])
    pq.write_table(pa.table({"file": ["a.png"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no column 'path' but file"):
        list_images([str(tmp_path / "other.parquet")])
    pq.write_table(pa.table({"path": ["a.png", None]}), tmp_path / "null.parquet")
    with pytest.raises(DataError, match="None in the column 'path'"):
        list_images([str(tmp_path / "null.parquet")])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(SettingsError, match=re.escape("pip install gcsfs")):
        list_images(["gs://bucket"])
