"""The page in a real browser: what a person does and sees."""

import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from conditional_detr.explain.attention_maps import explain

KEY = "0123456789abcdef"


@pytest.fixture
def page(browser, live):
    """A page of the starter. Errors of its scripts fail the test."""
    with live(threshold=0.3) as address:
        opened = browser.new_page()
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("console", lambda each: errors.append(each.text) if "Content Security" in each.text else None)
        opened.goto(address)
        wait(opened, "document.getElementById('model').textContent.includes('version')")
        yield opened
        opened.close()
        assert errors == []


def wait(page, condition: str, arg=None) -> None:
    """Wait until an expression is true. Playwright's own function for it evaluates text in the page, which the page forbids."""
    until = time.monotonic() + 20
    while not page.evaluate(condition, arg):
        assert time.monotonic() < until, condition
        time.sleep(0.02)


def upload(page, content: bytes, name: str = "scene.png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def contents(download) -> bytes:
    return download.path().read_bytes()


def rows(page) -> list[str]:
    return page.locator("#objects tbody tr").all_inner_texts()


def set_threshold(page, value: float) -> None:
    page.evaluate(
        "value => { const slider = document.getElementById('threshold'); slider.value = value;"
        "slider.dispatchEvent(new Event('input')); }",
        value,
    )


def test_an_image_is_shown_with_the_objects_that_the_detector_finds(page, starter, picture, png):
    upload(page, png)
    page.wait_for_selector("#objects tbody tr")
    expected = starter.predict(picture, 0.3)
    assert len(rows(page)) == len(expected)
    x0, y0, x1, y1 = (f"{value:.0f}" for value in expected.boxes[0].tolist())
    assert f"{x0}, {y0}, {x1}, {y1}" in rows(page)[0]
    assert f"{len(expected)} object" in page.inner_text("#status")
    assert "in the server" in page.inner_text("#latency")


def test_the_slider_and_classes_choose_without_a_new_request(page, starter, picture, png):
    upload(page, png)
    page.wait_for_selector("#objects tbody tr")
    requests = []
    page.on("request", lambda each: requests.append(each.url))
    for threshold in (0.1, 0.45, 1.0):
        set_threshold(page, threshold)
        assert len(rows(page)) == len(starter.predict(picture, threshold))
    assert "the best score in this image is" in page.inner_text("#status")
    assert requests == []


def test_pointing_at_a_box_shows_what_its_heads_look_at(page, starter, picture, png):
    upload(page, png)
    page.wait_for_selector("#objects tbody tr")
    expected = explain(starter, picture, top=1)
    x0, y0, x1, y1 = expected.detections.boxes[0].tolist()
    frame = page.locator("#canvas").bounding_box()
    scale = frame["width"] / picture.width
    page.mouse.move(frame["x"] + scale * (x0 + x1) / 2, frame["y"] + scale * (y0 + y1) / 2)
    page.wait_for_selector("#heads canvas")
    assert page.locator("#heads canvas").count() == starter.record.architecture.heads
    assert f"Query {expected.queries[0]}:" in page.inner_text("#attention-hint")

    # The brightest place of a head is where its attention is highest.
    head = int(expected.maps.combined[0].amax((1, 2)).argmax())
    content = page.locator("#heads canvas").nth(head).evaluate("canvas => canvas.toDataURL()")
    drawn = np.asarray(page_image(content).convert("RGB"), float)
    warm = drawn[..., 0] - drawn[..., 2]
    row, column = np.unravel_index(int(expected.maps.combined[0, head].argmax()), expected.maps.combined.shape[2:])
    height, width = warm.shape
    at = warm[int((row + 0.5) / expected.rows * height), int((column + 0.5) / expected.columns * width)]
    assert at > np.median(warm) + 60


def page_image(address: str) -> Image.Image:
    import base64

    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))


def test_the_keyboard_reaches_every_object(page, png):
    upload(page, png)
    page.wait_for_selector("#objects tbody tr")
    set_threshold(page, 0.1)
    page.locator("#objects tbody tr").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#objects tbody tr").nth(1).get_attribute("class") == "chosen"
    page.wait_for_selector("#heads canvas")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas')].filter(each => each.offsetParent"
        " && !each.labels?.length && !each.textContent.trim() && !each.getAttribute('aria-label')).map(each => each.id)"
    )
    assert unnamed == []


def test_reference_points_layers_and_parts(page, png):
    upload(page, png)
    page.wait_for_selector("#objects tbody tr")
    before = page.locator("#canvas").evaluate("canvas => canvas.toDataURL()")
    page.check("#points")
    wait(page, "before => document.getElementById('canvas').toDataURL() !== before", arg=before)
    page.locator("#objects tbody tr").first.focus()
    page.wait_for_selector("#heads canvas")
    combined = page.locator("#heads canvas").first.evaluate("canvas => canvas.toDataURL()")
    page.select_option("#part", "spatial")
    wait(page, "map => document.querySelector('#heads canvas').toDataURL() !== map", arg=combined)
    page.select_option("#layer", "1")
    wait(page, "document.getElementById('attention-hint').textContent.includes('layer 1 of 2')")


def test_json_and_picture_are_saved(page, starter, picture, png, tmp_path):
    upload(page, png)
    page.wait_for_selector("#objects tbody tr")
    with page.expect_download() as saved:
        page.click("#save-json")
    found = json.loads(contents(saved.value))
    assert saved.value.suggested_filename == "scene.json"
    assert len(found["images"][0]["objects"]) == len(starter.predict(picture, 0.3))
    with page.expect_download() as saved:
        page.click("#save-picture")
    assert Image.open(io.BytesIO(contents(saved.value))).size == picture.size


def test_what_is_no_image_is_said_in_words(page):
    upload(page, b"hello", "letter.png")
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "letter.png is not an image of a known format; replace or remove the file"


def test_names_are_shown_as_text_and_never_run(page, png):
    upload(page, b"hello", "<img src=x onerror=alert(1)>.png")
    page.wait_for_selector("#error:not(:empty)")
    assert "<img src=x" in page.inner_text("#error")
    assert page.locator("#error img").count() == 0


def test_samples_and_the_camera(page):
    page.click("#sample")
    wait(page, "document.getElementById('latency').textContent.includes('in the server')")
    page.click("#camera")
    wait(page, "document.getElementById('camera').textContent === 'Stop camera'")
    wait(page, "document.getElementById('canvas').getAttribute('aria-label').startsWith('camera.jpg')")
    page.click("#camera")
    assert page.inner_text("#camera") == "Camera"


def test_a_key_is_asked_for(browser, live, png):
    with live(keys=(KEY,)) as address:
        opened = browser.new_page()
        opened.goto(address)
        opened.wait_for_selector("#key-dialog[open]")
        opened.fill("#key", KEY)
        opened.keyboard.press("Enter")
        wait(opened, "document.getElementById('model').textContent.includes('version')")
        upload(opened, png)
        wait(opened, "document.getElementById('latency').textContent.includes('in the server')")
        opened.close()


def test_a_stopped_server_is_said_in_words(browser, live, png):
    opened = browser.new_page()
    with live() as address:
        opened.goto(address)
        wait(opened, "document.getElementById('model').textContent.includes('version')")
    upload(opened, png)
    opened.wait_for_selector("#error:not(:empty)")
    assert "does not answer" in opened.inner_text("#error")
    opened.close()


def test_it_fits_a_phone(browser, live, png):
    with live() as address:
        opened = browser.new_page(viewport={"width": 360, "height": 740})
        opened.goto(address)
        upload(opened, png)
        wait(opened, "document.getElementById('latency').textContent.includes('in the server')")
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360
        opened.close()
