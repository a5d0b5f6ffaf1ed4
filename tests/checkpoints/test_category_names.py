"""Category names for checkpoints without them, and instead of others."""

import json
from dataclasses import replace

import pytest

from conditional_detr import Detector
from conditional_detr.checkpoints.category_names import read_names, with_names
from conditional_detr.checkpoints.coco_categories import COCO_80, COCO_91, unnamed
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.errors import InputError
from conditional_detr.record import Categories
from tests.checkpoints.models import randomized, save_checkpoint, small

FIVE = ("cat", "dog", "bird", "fish", "ant")
RECORDS = [{"id": id_, "name": name} for id_, name in zip((5, 1, 2, 3, 4), FIVE, strict=True)]


@pytest.fixture(scope="module")
def checkpoint():
    return randomized(small())


@pytest.fixture
def named(checkpoint):
    """Name the categories of a checkpoint with these ones; only the record matters."""

    def named(given, categories, softmax=False):
        architecture = checkpoint.architecture
        if softmax:
            architecture = architecture.model_copy(update={"classification": "softmax"})
        record = replace(checkpoint.record, architecture=architecture, categories=categories)
        return with_names(replace(checkpoint, record=record), read_names(given), "x.pth").categories

    return named


@pytest.fixture
def files(tmp_path):
    contents = {
        "classes.txt": "cat\ndog \r\nbird\nfish\nant\n\n",
        "bom.names": "\ufeffcat\ndog\nbird\nfish\nant",
        "coco.json": json.dumps({"images": [], "annotations": [], "categories": RECORDS}),
        "config.json": json.dumps({"id2label": {str(i): name for i, name in enumerate(FIVE)}}),
        "data.yaml": "path: ../x\nnc: 5\nnames: [cat, dog, bird, fish, ant]\n",
        "map.yml": "names:\n  0: cat\n  1: dog\n  2: bird\n  3: fish\n  4: ant\n",
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["classes.txt", "bom.names", "config.json", "data.yaml", "map.yml"])
def test_files_with_names_in_order(name, named, files):
    for given in (files / name, str(files / name)):
        assert named(given, unnamed(5)) == Categories((0, 1, 2, 3, 4), FIVE)


def test_names_in_python(named):
    for given in (list(FIVE), FIVE, " cat,dog, bird,fish,ant", dict(enumerate(FIVE))):
        assert named(given, unnamed(5)) == Categories((0, 1, 2, 3, 4), FIVE)
    assert named(",".join(COCO_80.names), COCO_80) == COCO_80
    assert named("person", unnamed(1)) == Categories((0,), ("person",))


def test_ids_of_a_coco_file(named, files):
    coco = files / "coco.json"
    in_order = ("dog", "bird", "fish", "ant", "cat")
    # As many rows as categories: in ascending order of ids.
    assert named(coco, unnamed(5)) == Categories((1, 2, 3, 4, 5), in_order)
    # The official code has a row for every id up to the largest, or leaves the 91 rows of COCO.
    assert named(coco, unnamed(6)) == Categories((0, 1, 2, 3, 4, 5), ("N/A", *in_order))
    assert named(coco, COCO_91).names == ("N/A", *in_order, *["N/A"] * 85)
    # The rows of a checkpoint that has these ids.
    assert named(coco, Categories((2, 5, 1, 4, 3), tuple("abcde"))) == Categories(
        (2, 5, 1, 4, 3), ("bird", "cat", "dog", "ant", "fish")
    )
    everything = dict(zip(COCO_80.ids, COCO_80.names, strict=True))
    assert named(everything, COCO_91) == COCO_91
    assert named(everything, COCO_80) == COCO_80


def test_names_replace_others_of_the_same_number_and_say_so(named, caplog):
    caplog.set_level("INFO")
    assert named(["a", "N/A", "N/A"], Categories((3, 0, 90), ("x", "y", "z"))) == Categories(
        (3, 0, 90), ("a", "N/A", "N/A")
    )
    assert "x.pth: categories are named 'a', 'N/A', 'N/A' (before: 'x', 'y', 'z')" in caplog.text


@pytest.mark.parametrize(
    ("given", "rows", "sentence"),
    [
        (list(FIVE), 6, "names gives 5 category names, but the class head of x.pth has 6 rows; the official code has a row"),
        (list(FIVE), 91, "5 category names, .* has 91 rows; .* or the COCO annotation file"),
        (list(FIVE), 4, "5 category names, .* has 4 rows; give the names that it was trained with"),
        ("a,b", 3, "names 'a,b' gives 2 category names"),
        ("coco.json", 7, r"coco\.json gives 5 category names, but the class head of x.pth has 7 rows"),
        ({-1: "a", 1: "b"}, 2, "-1, which is no category id"),
        ("a,b,a", 3, "holds 'a' 2 times"),
        ("a,,b", 3, "'', which is no name"),
        ([], 1, "holds no names"),
        (["a", " "], 2, "' ', which is no name"),
        ("nowhere.txt", 1, "nowhere.txt is no file"),
        ("folder/classes", 1, "folder/classes is no file"),
        ("binary.txt", 1, "binary.txt holds no names .*utf-8"),
        ("long.txt", 1, "long.txt holds no names .*is longer than"),
        ("bad.yaml", 1, "bad.yaml holds no names"),
        ("empty.yaml", 1, "empty.yaml holds no names"),
        ("bad.json", 1, "bad.json is not valid JSON"),
        ("other.json", 1, "other.json holds no names"),
        ("ids.json", 1, "ids.json holds '1', which is no category id"),
        ("twice.json", 2, "twice.json holds 1 2 times"),
        ("list.json", 1, r"list.json holds \[1\], which is no category id"),
        ("word.yaml", 3, "word.yaml holds no names .*no list of names"),
        ("", 1, "'', which is no name"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_one_sentence(given, rows, sentence, named, files, monkeypatch):
    monkeypatch.chdir(files)
    (files / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (files / "long.txt").write_bytes(b"a" * (2**20 + 1))
    (files / "bad.yaml").write_text("names: [a")
    (files / "empty.yaml").write_text("nc: 3")
    (files / "bad.json").write_text("{")
    (files / "other.json").write_text('{"categories": [{"id": 1}]}')
    (files / "ids.json").write_text('{"categories": [{"id": "1", "name": "a"}]}')
    (files / "list.json").write_text('{"categories": [{"id": [1], "name": "a"}]}')
    (files / "word.yaml").write_text("names: abc")
    (files / "twice.json").write_text('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}')
    with pytest.raises(InputError, match=sentence) as caught:
        named(given, unnamed(rows))
    assert "\n" not in str(caught.value)


def test_the_row_of_no_object_needs_no_name(named):
    with pytest.raises(InputError, match='has 6 rows \\(without that of "no object"\\); the official code'):
        named(list(FIVE), unnamed(6), softmax=True)


def test_names_are_kept_with_the_model(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "start")
    detector = Detector.from_pretrained(tmp_path / "start", device="cpu", names=["a", "b", "c"])
    assert detector.categories == Categories((1, 2, 3), ("a", "b", "c"))
    detector.save_pretrained(tmp_path / "named")
    assert open_checkpoint(tmp_path / "named").categories == detector.categories
    with pytest.raises(InputError, match="gives 2 category names") as caught:
        Detector.from_pretrained(tmp_path / "start", device="cpu", names="a,b")
    assert caught.value.argument == "names"
