"""The folder of a report: its page and numbers, and what it never replaces."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from conditional_detr.architecture import Architecture
from conditional_detr.errors import SettingsError
from conditional_detr.evaluation.report import read_info, refuse_others, write_report
from conditional_detr.evaluation.report.findings import WORST
from conditional_detr.record import Categories, ModelRecord
from tests.conftest import no_room_for_files_over
from tests.evaluation.report.cases import CAT, DOG, Analysis, analyzed, annotations, results

NAMES = ("<script>cat</script>", "$\\frac{dog}$\x1b[31m")
RECORD = ModelRecord(Architecture(), Categories((CAT, DOG), NAMES))
PLOTS = {"curves.png", "confusion.png", "errors.png"}


def analysis_of(folder, images: int = 2) -> Analysis:
    """Every image has a cat that is found, one that is missed, and a dog that is found as a cat; the second one is damaged."""
    for i in range(images):
        Image.fromarray(np.full((100, 100, 3), 99, dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(b"damaged")
    image = [(CAT, 0, 0, 10, 10), (CAT, 40, 0, 10, 10), (DOG, 50, 50, 20, 20)]
    found = [(CAT, 0.9, 0, 0, 10, 10), (CAT, 0.8, 50, 50, 20, 20)]
    data = annotations(*[image] * images, categories=RECORD.categories, folder=folder)
    return analyzed(data, results(*[found] * images))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_report(folder / "report", analysis_of(folder), RECORD, {"model": "runs/<b>x</b>"})
    return folder / "report"


@pytest.fixture(scope="module")
def blank() -> Analysis:
    """Its report is written in moments, without plots."""
    return analyzed(annotations([], []), results([(CAT, 0.9, 0, 0, 9, 9)]))


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]


def test_the_page_shows_its_pictures_and_needs_nothing_else(written):
    text = (written / "index.html").read_text()
    page = Page(text)
    assert set(page.links) == PLOTS | {"worst-01.jpg"}  # the other image is damaged
    assert {path.name for path in written.iterdir()} == {*page.links, "index.html", "report.json"}
    for name in page.links:
        Image.open(written / name).verify()
    assert "http" not in text
    assert "url(" not in text


def test_a_browser_shows_the_page_on_a_phone_without_the_internet(written, browser):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.goto((written / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    assert all(each.startswith("file:") for each in asked)
    page.close()


def test_names_are_text_on_the_page(written):
    text = (written / "index.html").read_text()
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;cat" in text
    assert "&lt;b&gt;x" in text
    assert "\x1b" not in text
    assert "can&#x27;t be read" in text or "can't be read" in text


def test_the_numbers(written):
    found = json.loads((written / "report.json").read_text())
    assert {key: found["info"][key] for key in ("program", "version", "model")} == {
        "program": "cdetr evaluate",
        "version": 1,
        "model": "runs/<b>x</b>",
    }
    assert (found["images"], found["objects"], found["detections"], found["note"]) == (2, 6, 4, None)
    cat, dog = found["per_class"]
    assert (cat["category_id"], cat["name"], cat["objects"]) == (CAT, NAMES[0], 4)
    assert cat["AP50"] == pytest.approx(51 / 101, abs=1e-6)
    assert (dog["AP50"], dog["best"]) == (0, None)
    assert cat["best"]["threshold"] == pytest.approx(0.85)
    assert (cat["best"]["correct"], cat["best"]["wrong"], cat["best"]["missed"], cat["best"]["recall"]) == (
        2,
        0,
        2,
        0.5,
    )
    assert found["best"]["f1"] == pytest.approx(0.5)
    assert found["metrics"]["AP50"] == pytest.approx(51 / 202, abs=1e-6)
    assert found["confusion"] == {
        "categories": [*NAMES, "background"],
        "counts": [[2, 0, 2], [0, 0, 2], [0, 0, 0]],  # the wrong cats are below the threshold of their category
    }
    assert {each["kind"]: each["of_all"] for each in found["errors"]} == {
        "class": 2,
        "place": 0,
        "both": 0,
        "duplicate": 0,
        "background": 0,
        "missed": 2,
    }
    assert [len(found["curves"]["all"][key]) for key in ("precision", "recall", "f1", "precision_at_recall")] == [
        101
    ] * 4
    assert found["curves"]["per_class"][0]["recall"][85] == 0.5
    assert [(each["index"], each["correct"]) for each in found["worst"]] == [(0, 1), (1, 1)]
    assert found["worst"][0]["faults"][0]["kind"] == "missed"
    assert found["hints"]


def test_data_without_annotations_is_told_in_a_sentence(blank, tmp_path):
    write_report(tmp_path / "x", blank, RECORD, {})
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["index.html", "report.json"]
    note = json.loads((tmp_path / "x" / "report.json").read_text())["note"]
    assert "no annotated objects" in note
    assert note.split(",")[0] in (tmp_path / "x" / "index.html").read_text()


def test_an_earlier_report_is_replaced_and_other_files_stay(written, blank, tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    for path in written.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("mine")
    write_report(folder, blank, RECORD, {"step": 7})
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "notes.txt", "report.json"]
    assert read_info(folder)["step"] == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "index.html").write_text("mine"),
        lambda folder: (folder / "curves.png").write_text("mine"),
        lambda folder: (folder / "WORST-12.JPG").write_text("mine"),
        lambda folder: (folder / "report.json").write_text("{}"),
        lambda folder: (folder / "report.json").unlink(),
        lambda folder: (folder / "report.json").write_text(
            (folder / "report.json").read_text().replace('"images": 2', '"images": 3')
        ),
        lambda folder: (folder / "errors.png").mkdir(),
        lambda folder: (folder / "worst-01.jpg").symlink_to(folder / "notes.txt"),
        lambda folder: (folder / "index.html").unlink() or (folder / "index.html").symlink_to("elsewhere"),
    ],
)
def test_what_others_wrote_is_not_replaced(blank, tmp_path, change):
    folder = tmp_path / "report"
    write_report(folder, blank, RECORD, {})
    refuse_others(folder)
    change(folder)
    before = {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SettingsError, match=r"report.* was not written by a report, or was changed since"):
        write_report(folder, blank, RECORD, {})
    assert before == {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}


def test_what_is_no_folder_is_refused(blank, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(SettingsError, match=f"{name} is not a folder"):
            refuse_others(tmp_path / name)


def test_a_full_disk_keeps_the_earlier_report(written, blank, tmp_path):
    folder = tmp_path / "report"
    write_report(folder, blank, RECORD, {"step": 1})
    with no_room_for_files_over(100), pytest.raises(OSError, match="large"):
        write_report(folder, blank, RECORD, {"step": 2})
    assert read_info(folder)["step"] == 1
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "report.json"]


def test_a_kill_between_the_files_is_mended(blank, tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write_report(folder, blank, RECORD, {"step": 1})

    def killed(source, target):
        if re.search(r"report/report\.json$", str(target)):
            raise SystemExit
        plain(source, target)

    import os

    plain = os.replace
    with monkeypatch.context() as patch:
        patch.setattr("conditional_detr.evaluation.report.folder.os.replace", killed)
        patch.setattr("conditional_detr.evaluation.report.folder.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            write_report(folder, blank, RECORD, {"step": 2})
    assert read_info(folder)["step"] == 1
    write_report(folder, blank, RECORD, {"step": 3})
    assert read_info(folder)["step"] == 3
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "report.json"]


def test_many_categories_and_images(tmp_path):
    count = 30
    categories = Categories(tuple(range(count)), tuple(f"a category with a long name {i}" for i in range(count)))
    images = [[(i, 0, 0, 30, 30)] for i in range(count)]
    found = [[((i + 1) % count if i % 2 else i, 0.5 + i / 100, 0, 0, 30, 30)] for i in range(count)]
    for i in range(count):
        Image.new("RGB", (100, 100)).save(tmp_path / f"{i}.png")
    analysis = analyzed(annotations(*images, categories=categories, folder=tmp_path), results(*found))
    write_report(tmp_path / "report", analysis, replace(RECORD, categories=categories), {})
    assert len(list((tmp_path / "report").glob("worst-*.jpg"))) == WORST
