"""Pascal VOC: folders and lists, what an object says, categories, and XML that is wrong or hostile."""

import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from conditional_detr.config import DataSettings
from conditional_detr.data.layouts import voc
from conditional_detr.data.layouts.voc_xml import read_xml
from conditional_detr.data.listing import Listing
from conditional_detr.data.reading import read_split
from conditional_detr.errors import DataError
from tests.conftest import SHARED, needs_shared
from tests.data.layouts import listings
from tests.data.layouts.listings import image, linked, problems, rows, rows_of_coco, write

BCCD = SHARED / "data" / "bccd"


def obj(name="cat", corners=(1, 2, 11, 22), extra="") -> str:
    box = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"


def annotation(*objects: str, filename="", size=(40, 30)) -> str:
    width, height = size
    return (
        f"<annotation><filename>{filename}</filename><size><width>{width}</width><height>{height}</height></size>"
        f"{''.join(objects)}</annotation>"
    )


def one(root: Path, *objects: str, **kwargs) -> Path:
    """Write a data set of one image, a.jpg."""
    write(root / "Annotations" / "a.xml", annotation(*objects, **kwargs))
    image(root / "JPEGImages" / "a.jpg")
    return root


def devkit(root: Path, names=("b", "a", "c"), **lists: str) -> Path:
    """Write a data set in Pascal VOC's own layout. lists: name of a list -> its text."""
    for name in names:
        write(root / "Annotations" / f"{name}.xml", annotation(obj()))
        image(root / "JPEGImages" / f"{name}.jpg")
    for split, text in lists.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", text)
    return root


def read(root: Path, split="train", **settings) -> Listing:
    return listings.read(voc, root, split, **settings)


def refused(root: Path, split="train", **settings) -> str:
    return listings.refused(voc, root, split, **settings)


# --- real data ---


@needs_shared("data/bccd")
@pytest.mark.parametrize("split", ["train", "val"])
def test_bccd_equals_its_coco_form(split):
    given = ("Platelets", "RBC", "WBC") if split == "val" else ()  # training reads them from all files
    listing = read(BCCD / "voc", split, categories=given)
    files, objects = rows_of_coco(BCCD / "coco" / "annotations" / f"instances_{split}.json")
    assert listing.file_names == files
    assert rows(listing) == objects
    assert listing.categories.names == ("Platelets", "RBC", "WBC")
    assert listing.categories.ids == (1, 2, 3)
    assert list(listing.image_ids) == list(range(1, len(files) + 1))
    assert (listing.sizes == (480, 640)).all()
    assert problems(listing)["without_area"] == 1  # broken.json names it
    assert not listing.fractions
    assert not listing.crowd.any()


@needs_shared("data/bccd")
def test_bccd_equals_what_supervision_reads(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        supervision = pytest.importorskip("supervision")
    names = (BCCD / "voc" / "ImageSets" / "Main" / "train.txt").read_text().split()[:20]
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        linked(BCCD / "voc" / folder, tmp_path / folder, [f"{name}{suffix}" for name in names])
    found = supervision.DetectionDataset.from_pascal_voc(str(tmp_path / "JPEGImages"), str(tmp_path / "Annotations"))
    theirs = {os.path.basename(path): each for path, each in found.annotations.items()}
    listing = read(tmp_path, voc_one_based=True)  # it counts from 1
    assert listing.file_names == sorted(theirs)
    for owner, file in enumerate(listing.file_names):
        boxes = listing.boxes[listing.owners == owner]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        assert corners.tolist() == theirs[file].xyxy.tolist()
        labels = listing.labels[listing.owners == owner]
        assert [listing.categories.names[i] for i in labels] == [found.classes[i] for i in theirs[file].class_id]


# --- folders and lists ---


def test_lists_give_the_order(tmp_path):
    root = devkit(tmp_path, train="b\na\n", val="c\n")
    assert read(root).file_names == ["b.jpg", "a.jpg"]
    assert read(root).source == root / "ImageSets" / "Main" / "train.txt"
    assert read(root, "val").file_names == ["c.jpg"]


@pytest.mark.parametrize(
    "text",
    ["b\r\n\r\na\r\n", "\ufeffb\na", "  b \n\n\n a\n\n", "b 1\na  1\n", "b.jpg\na.xml\n", '"b"\nJPEGImages/a.jpg'],
    ids=repr,
)
def test_lines_of_lists(tmp_path, text):
    assert read(devkit(tmp_path, train=text, val="c")).file_names == ["b.jpg", "a.jpg"]


def test_names_with_spaces(tmp_path):
    root = devkit(tmp_path, names=("a 1", "a", "b 1"), train="a 1\na\nb 1\n")
    assert read(root).file_names == ["a 1.jpg", "a.jpg", "b 1.jpg"]


def test_lists_of_pascal_voc_2007(tmp_path):
    lists = {"trainval": "a\nb", "test": "c", "cat_train": "a -1\nb 1", "cat_trainval": "a -1"}
    root = devkit(tmp_path, **lists)
    assert read(root).file_names == ["a.jpg", "b.jpg"]
    assert read(root, "val").file_names == ["c.jpg"]
    assert problems(read(root, "val"))["test_split"] == 1
    write(root / "ImageSets" / "Main" / "val.txt", "b\n")
    assert read(root).file_names == ["a.jpg"]  # not those of val
    assert read(root, "val").file_names == ["b.jpg"]
    write(root / "ImageSets" / "Main" / "train.txt", "c\n")
    assert read(root).file_names == ["c.jpg"]


def test_wrong_lists(tmp_path):
    root = devkit(tmp_path, train="a\nd\ne", val="c")
    assert "2 of 3 images" in refused(root)
    assert "'d'" in refused(root)
    write(root / "ImageSets" / "Main" / "train.txt", "a -1\nb 1\n")
    assert "without its category ('a -1')" in refused(root)
    write(root / "ImageSets" / "Main" / "train.txt", "\n")
    assert "lists no images" in refused(root)
    write(root / "ImageSets" / "Main" / "train.txt", b"\xff\xfea\0")
    assert "UTF-8" in refused(root)
    write(root / "ImageSets" / "Main" / "train.txt", "a\nb\na\n")
    assert read(root).file_names == ["a.jpg", "b.jpg"]
    assert problems(read(root))["same_file"] == 1
    write(root / "ImageSets" / "Main" / "valid.txt", "a")
    assert "are both there" in refused(root, "val")


@pytest.mark.parametrize("parent", ["", "VOCdevkit", "VOCtrainval_11-May-2012/VOCdevkit"])
def test_a_data_set_inside_a_devkit(tmp_path, parent):
    devkit(tmp_path / parent / "VOC2012", train="a", val="b")
    assert read(tmp_path, "val").file_names == ["b.jpg"]
    devkit(tmp_path / parent / "VOC2007", train="a", val="b")
    message = refused(tmp_path)
    assert "VOC2007" in message
    assert "set data.root to one of them" in message
    assert read(tmp_path / parent / "VOC2012").file_names == ["a.jpg"]


@pytest.mark.parametrize("annotations", ["Annotations", "annotations", ""])
@pytest.mark.parametrize("val", ["valid", "val", "Valid", "test"])
def test_a_folder_per_split(tmp_path, annotations, val):
    """Roboflow's export has images and annotations in one folder."""
    for split, name in (("train", "b"), ("train", "a"), (val, "c")):
        write(tmp_path / split / annotations / f"{name}.xml", annotation(obj(name)))
        image(tmp_path / split / ("images" if annotations else "") / f"{name}.png")
    assert rows(read(tmp_path)) == [("a.png", "a", 1, 2, 10, 20), ("b.png", "b", 1, 2, 10, 20)]
    assert rows(read(tmp_path, "val")) == [("c.png", "c", 1, 2, 10, 20)]
    assert read(tmp_path).categories == read(tmp_path, "val").categories
    assert problems(read(tmp_path, "val")) == ({"test_split": 1} if val == "test" else {})


def test_a_folder_per_split_below_annotations(tmp_path):
    for split, name in (("train2017", "a"), ("val2017", "a")):
        write(tmp_path / "annotations" / split / f"{name}.xml", annotation(obj(split)))
        image(tmp_path / "images" / split / f"{name}.png")
    assert rows(read(tmp_path, "val")) == [("val2017/a.png", "val2017", 1, 2, 10, 20)]
    assert read(tmp_path).categories.names == ("train2017", "val2017")
    assert problems(read(tmp_path)) == {}


@pytest.mark.parametrize(
    "folders", [("annotations", "images"), ("Annotations", "JPEGImages"), ("annotations", ""), ("", "")]
)
def test_without_splits_all_is_for_training(tmp_path, folders):
    for name in ("b", "a"):
        write(tmp_path / folders[0] / f"{name}.xml", annotation(obj(name)))
        image(tmp_path / folders[1] / f"{name}.png")
    image(tmp_path / folders[1] / "unannotated.png")
    listing = read(tmp_path)
    assert listing.file_names == ["a.png", "b.png"]
    assert problems(listing) == {"unannotated": 1}
    assert not voc.recognize(tmp_path, "val")
    assert "no val split" in refused(tmp_path, "val")


def test_a_root_called_test_is_no_test_split(tmp_path):
    one(tmp_path / "test", obj())
    assert problems(read(tmp_path / "test")) == {}


def test_what_is_not_pascal_voc(tmp_path):
    assert not voc.recognize(tmp_path / "nowhere", "train")
    assert not voc.recognize(write(tmp_path / "data.yaml", "train: x"), "train")
    write(tmp_path / "train" / "images" / "a.xml", annotation())
    write(tmp_path / "annotations.xml", "<annotations><image/></annotations>")  # CVAT's own
    write(tmp_path / "annotations" / "instances_train.json", "{}")
    assert not voc.recognize(tmp_path, "train")
    assert "looked for Annotations/*.xml" in refused(tmp_path)
    write(tmp_path / "annotations" / "a.xml", "<annotations><image/></annotations>")
    assert "<annotations> instead of <annotation>" in refused(tmp_path)


# --- images ---


@pytest.mark.parametrize(
    "filename", ["", "a", "elsewhere.png", "C:\\photos\\a.jpg", "/home/me/a.png", "../../etc/passwd", "a.jpg"]
)
def test_an_annotation_is_named_after_its_image(tmp_path, filename):
    listing = read(one(tmp_path, obj(), filename=filename))
    assert listing.file_names == ["a.jpg"]
    assert problems(listing) == {}


def test_an_annotation_that_only_names_its_image(tmp_path):
    write(tmp_path / "Annotations" / "0001.xml", annotation(obj(), filename="photos/Street.JPG"))
    image(tmp_path / "JPEGImages" / "street.jpg")
    listing = read(tmp_path)
    assert listing.file_names == ["street.jpg"]
    assert problems(listing) == {"file_name": 1}


def test_names_that_contradict(tmp_path):
    root = devkit(tmp_path, names=("a", "b"))
    write(root / "Annotations" / "a.xml", annotation(obj(), filename="b.jpg"))
    assert read(root).file_names == ["a.jpg", "b.jpg"]
    assert problems(read(root)) == {"other_name": 1}
    image(root / "JPEGImages" / "b.png")
    assert "b.xml fits b.jpg and b.png" in refused(root)
    write(root / "Annotations" / "b.xml", annotation(obj(), filename="b.png"))
    assert read(root).file_names == ["a.jpg", "b.png"]


def test_missing_images(tmp_path):
    root = devkit(tmp_path, names=("a", "b"))
    (root / "JPEGImages" / "b.jpg").unlink()
    message = refused(root)
    assert "1 of 2 annotations" in message
    assert "the first is b.xml" in message
    assert "set data.train_images" in message
    image(tmp_path / "elsewhere" / "a.png")
    image(tmp_path / "elsewhere" / "b.png")
    assert read(root, train_images=tmp_path / "elsewhere").file_names == ["a.png", "b.png"]


# --- objects ---


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ((1, 2, 11, 22), [1, 2, 10, 20]),
        (("1.0", " 2 ", "11.5", "2.2e1"), [1, 2, 10.5, 20]),
        ((-3, 0, 50, 60), [-3, 0, 53, 60]),  # the common code tells what is beyond the image
    ],
)
def test_corners(tmp_path, corners, box):
    assert read(one(tmp_path, obj(corners=corners))).boxes.tolist() == [box]


@pytest.mark.parametrize("corners", [(11, 2, 1, 22), (1, 22, 11, 2), (5, 5, 5, 9), (5, 5, 5, 5)])
def test_boxes_without_area_are_counted_and_left_out(tmp_path, corners):
    listing = read(one(tmp_path, obj(corners=corners), obj("dog")))
    assert rows(listing) == [("a.jpg", "dog", 1, 2, 10, 20)]
    assert problems(listing) == {"without_area": 1}
    assert listing.categories.names == ("cat", "dog")


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1,5", "1e999", "1_0", "\u0661"])
def test_corners_that_are_no_numbers(tmp_path, value):
    message = refused(one(tmp_path, obj(), obj("dog", corners=(value, 2, 11, 22))))
    assert "a.xml: object 2, 'dog'," in message
    assert "xmin" in message


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ("<object><bndbox/></object>", "object 1 has no name"),
        ("<object><name> </name><bndbox/></object>", "object 1 has no name"),
        ("<object><name>cat</name></object>", "'cat', has no bndbox"),
        ("<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>", "has no ymin"),
        ("<object><name>cat</name><polygon><x1>1</x1><y1>1</y1></polygon></object>", "a polygon of 1 points"),
        ("<object><name>cat</name><robndbox><cx>1</cx></robndbox></object>", "has no cy"),
    ],
)
def test_incomplete_objects(tmp_path, objects, said):
    assert said in refused(one(tmp_path, objects))


def test_parts_are_no_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    listing = read(one(tmp_path, obj("person", extra=part)))
    assert rows(listing) == [("a.jpg", "person", 1, 2, 10, 20)]
    assert listing.categories.names == ("person",)


@pytest.mark.parametrize(
    ("difficult", "crowd"),
    [("1", True), ("1.0", True), ("true", True), ("0", False), ("Unspecified", False), ("", False), (None, False)],
)
def test_difficult_objects(tmp_path, difficult, crowd):
    extra = "" if difficult is None else f"<truncated>1</truncated><difficult>{difficult}</difficult>"
    root = one(tmp_path, obj(extra=extra))
    assert read(root).crowd.tolist() == [crowd]
    assert problems(read(root)) == ({"difficult": 1} if crowd else {})
    kept = read(root, voc_difficult="keep")
    assert kept.crowd.tolist() == [False]
    assert problems(kept) == {}


def test_difficult_objects_are_told_once(tmp_path):
    root = one(tmp_path, obj(extra="<difficult>1</difficult>"), obj("dog"))
    found = read_split(DataSettings(root=root), "train")
    assert [problem.kind for problem in found.problems] == ["difficult"]
    assert found.crowd.tolist() == [True, False]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ("<polygon><x1>3</x1><y1>4</y1><x2>9</x2><y2>5</y2><x3>6</x3><y3>12</y3></polygon>", [3, 4, 6, 8]),
        ("<polygon>" + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((3, 4), (9, 5), (6, 12))) + "</polygon>", [3, 4, 6, 8]),
        ("<robndbox><cx>20</cx><cy>10</cy><w>8</w><h>4</h><angle>0</angle></robndbox>", [16, 8, 8, 4]),
        ("<robndbox><cx>20</cx><cy>10</cy><w>8</w><h>4</h><angle>1.5707963267948966</angle></robndbox>", [18, 6, 4, 8]),
    ],
)  # fmt: skip
def test_polygons_and_rotated_boxes(tmp_path, shape, box):
    listing = read(one(tmp_path, f"<object><name>cat</name>{shape}</object>"))
    np.testing.assert_allclose(listing.boxes, [box])
    assert problems(listing) == {"outline": 1}
    assert problems(read(one(tmp_path, obj(extra=shape)))) == {}  # a box beside a polygon is used


def test_corners_counted_from_1(tmp_path):
    corners = (1, 1, 40, 30)
    root = one(tmp_path, *[obj(corners=corners)] * 3, obj(corners=(5, 5, 5, 9)))
    assert problems(read(root)) == {"one_based": 6, "without_area": 1}
    listing = read(root, voc_one_based=True)
    assert listing.boxes.tolist() == [[0, 0, 40, 30]] * 3 + [[4, 4, 1, 5]]
    assert problems(listing) == {}
    one(tmp_path, *[obj(corners=corners)] * 3, obj(corners=(0, 1, 5, 5)))
    assert problems(read(root)) == {}
    message = refused(root, voc_one_based=True)
    assert "a.xml: 'cat' has a corner at 0" in message
    assert "leave out data.voc_one_based" in message


@pytest.mark.parametrize("size", [("", ""), (0, 0), ("x", 3), (-4, 3), (2**40, 3), (40, 0)])
def test_unknown_sizes_are_0(tmp_path, size):
    assert read(one(tmp_path, obj(), size=size)).sizes.tolist() == [[0, 0]]
    write(tmp_path / "Annotations" / "a.xml", f"<annotation>{obj()}</annotation>")
    assert read(tmp_path).sizes.tolist() == [[0, 0]]


def test_sizes_as_text(tmp_path):
    assert read(one(tmp_path, obj(), size=("40.0", " 30 "))).sizes.tolist() == [[30, 40]]


def test_images_without_objects_are_kept(tmp_path):
    write(tmp_path / "Annotations" / "b.xml", annotation())
    image(tmp_path / "JPEGImages" / "b.jpg")
    assert read(one(tmp_path, obj())).file_names == ["a.jpg", "b.jpg"]
    write(tmp_path / "Annotations" / "a.xml", annotation())
    assert "no annotation has an object" in refused(tmp_path)


# --- categories ---


def test_categories_are_those_of_all_files(tmp_path):
    root = devkit(tmp_path, train="a", val="b\nc")
    write(root / "Annotations" / "a.xml", annotation(obj("zebra")))
    write(root / "Annotations" / "b.xml", annotation(obj("ant")))
    for split in ("train", "val"):
        assert read(root, split).categories.names == ("ant", "cat", "zebra")
        assert read(root, split).categories.ids == (1, 2, 3)
    assert rows(read(root))[0][:2] == ("a.jpg", "zebra")


def test_categories_of_the_settings(tmp_path):
    root = one(tmp_path, obj("cat"), obj("dog"))
    listing = read(root, categories=("dog", "bird", "cat"))
    assert listing.categories.names == ("dog", "bird", "cat")
    assert listing.labels.tolist() == [2, 0]
    for near in ("dogs", "DOG"):
        message = refused(root, categories=(near, "cat"))
        assert "a.xml: category 'dog'" in message
        assert f"data.categories (did you mean {near!r}?)" in message


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "dog\ncat\n"),
        ("labels.txt", "\ufeffdog\r\n cat \r\n\r\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:1,2,3:tail,head:\ncat:4,5,6::\n"),
    ],
)
def test_categories_of_a_file(tmp_path, file, text):
    root = one(tmp_path, obj("cat"), obj("dog"))
    write(tmp_path / file, text)
    assert read(root).categories.names == ("dog", "cat")
    write(tmp_path / file, text.replace("dog", "frog"))
    assert f"{file} (did you mean 'frog'?)" in refused(root)


def test_an_empty_line_between_categories(tmp_path):
    write(tmp_path / "classes.txt", "dog\n\ncat\n")
    assert "classes.txt names no category in line 2" in refused(one(tmp_path, obj()))


def test_names_that_differ_in_case_only(tmp_path):
    listing = read(one(tmp_path, obj("Cat"), obj("cat"), obj("CAT "), obj("dog")))
    assert problems(listing) == {"similar_category": 2}


# --- XML ---


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf<annotation><object><name>caf\xc3\xa9</name>",
        b"<?xml version='1.0' encoding='latin-1'?><annotation><object><name>caf\xe9</name>",
        b'<?xml version="1.0" encoding="windows-1252"?>\n<!-- by hand --><annotation><object><name>caf\xe9</name>',
        b"<annotation xmlns='http://example.org/voc'><object><name>caf&#233;</name>",
        b"<v:annotation xmlns:v='x'><v:object><v:name><![CDATA[caf\xc3\xa9]]></v:name>",
        "<?xml version='1.0' encoding='utf-16'?><annotation><object><name>café</name>".encode("utf-16"),
        "<?xml version='1.0' encoding='GBK'?><annotation><object><name>café</name>".encode("gbk"),
    ],
    ids=range(7),
)
def test_encodings_and_namespaces(tmp_path, content):
    prefix = "v:" if b"v:" in content else ""
    box = "".join(f"<{prefix}{tag}>{i}</{prefix}{tag}>" for i, tag in enumerate(("xmin", "ymin", "xmax", "ymax")))
    rest = f"<{prefix}bndbox>{box}</{prefix}bndbox></{prefix}object></{prefix}annotation>"
    encoding = "utf-16-le" if content[:2] == b"\xff\xfe" else "ascii"
    found = read_xml(write(tmp_path / "a.xml", content + rest.encode(encoding)))
    assert [(each.name, each.corners) for each in found.objects] == [("café", (0, 1, 2, 3))]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"<annotation>", "is not valid XML"),
        (b"<annotation><object></annotation>", "is not valid XML"),
        (b"{}", "is not valid XML"),
        (b"\x00\x01\x02", "is not valid XML"),
        (b"<annotation>caf\xe9</annotation>", "is not valid XML"),
        (b"<?xml version='1.0' encoding='klingon'?><annotation/>", "is not valid XML"),
        (b"<?xml version='1.0' encoding='gbk'?><annotation>\xff</annotation>", "is not valid XML"),
        (b"<html/>", "<html> instead of <annotation>"),
        (b"<a>" * 100_000, "nested deeper"),
        (b"<!DOCTYPE annotation><annotation/>", "document type"),
        (b"<annotation>&nothing;</annotation>", "is not valid XML"),
    ],
)
def test_damaged_xml(tmp_path, content, said):
    one(tmp_path, obj())
    write(tmp_path / "Annotations" / "b.xml", content)
    image(tmp_path / "JPEGImages" / "b.jpg")
    message = refused(tmp_path)
    assert said in message
    assert "b.xml" in message


def test_entities_neither_grow_nor_read_files(tmp_path):
    secret = write(tmp_path / "secret.txt", "SECRET")
    bomb = '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    outside = f'<!DOCTYPE annotation [<!ENTITY k SYSTEM "{secret.as_uri()}">'
    for dtd in (bomb, outside, f'<!DOCTYPE annotation SYSTEM "{secret.as_uri()}" ['):
        file = write(
            tmp_path / "a.xml", f"<?xml version='1.0'?>{dtd}]><annotation><filename>&k;</filename></annotation>"
        )
        started = time.process_time()
        with pytest.raises(DataError, match="document type") as caught:
            read_xml(file)
        assert "SECRET" not in str(caught.value)
        assert time.process_time() - started < 5


def test_many_points_take_linear_time(tmp_path):
    points = "".join(f"<x{i}>{i}</x{i}><y{i}>{i % 7}</y{i}>" for i in range(1, 2_001))
    started = time.process_time()
    found = read_xml(
        write(
            tmp_path / "a.xml", f"<annotation><object><name>a</name><polygon>{points}</polygon></object></annotation>"
        )
    )
    assert found.objects[0].corners == (1, 0, 2_000, 6)
    assert time.process_time() - started < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_not_read(tmp_path):
    one(tmp_path, obj())
    os.mkfifo(tmp_path / "Annotations" / "b.xml")
    assert "it is not a file" in refused(tmp_path)


TAGS = [
    "annotation",
    "object",
    "name",
    "bndbox",
    "xmin",
    "ymin",
    "xmax",
    "ymax",
    "size",
    "width",
    "polygon",
    "x1",
    "pt",
    "part",
]
PIECES = st.sampled_from(
    [f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS] + ["1", "-2.5", "nan", "cat", "&#0;", "<!--", "]]>", "\x00", "é"]
)  # fmt: skip
MADE = st.lists(PIECES, max_size=12).map("".join)
FILES = st.one_of(
    st.binary(max_size=60),
    MADE.map(str.encode),
    MADE.map(lambda text: f"<annotation>{text}</annotation>".encode()),
    st.tuples(st.text(max_size=5), *[st.one_of(st.text(max_size=4), st.integers().map(str))] * 4).map(
        lambda values: annotation(obj(values[0], values[1:])).encode("utf-8", "surrogatepass")
    ),
)


@given(content=FILES)
@limits(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_is_read_or_refused_in_a_sentence(tmp_path, content):
    write(tmp_path / "Annotations" / "a.xml", content)
    if not (tmp_path / "JPEGImages").exists():
        image(tmp_path / "JPEGImages" / "a.jpg")
    try:
        listing = voc.read(DataSettings(root=tmp_path), "train")
    except DataError as error:
        message = str(error)
    else:
        assert len(listing.boxes) == len(listing.owners) == len(listing.labels)
        message = ""
    assert "\n" not in message
