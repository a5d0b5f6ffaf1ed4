"""``/v1/detect`` and ``/v1/attention``: equal to ``Detector``, in every form of request and answer; refusals in one sentence."""

import base64
import io
import time

import numpy as np
import pytest
from PIL import Image

from conditional_detr.data.images import decode_image
from conditional_detr.explain.attention_maps import explain
from tests.serve.conftest import encoded


def boxes_of(answer, image=0) -> np.ndarray:
    return np.array([each["box"] for each in answer.json()["images"][image]["objects"]])


def refusal(answer, status: int) -> str:
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["request_id"] == answer.headers["X-Request-ID"]
    assert "Traceback" not in answer.text
    return error["message"]


def test_a_form_gives_what_the_detector_finds(client, starter, picture, png):
    expected = starter.predict(picture, 0.3)
    assert len(expected)  # else the test shows nothing

    answer = client.post("/v1/detect", files={"image": ("scene.png", png)}, data={"threshold": "0.3"})

    assert answer.status_code == 200
    np.testing.assert_allclose(boxes_of(answer), expected.boxes.numpy(), rtol=0, atol=1e-3)
    result = answer.json()["images"][0]
    assert [each["score"] for each in result["objects"]] == pytest.approx(expected.scores.tolist(), abs=1e-6)
    assert (result["name"], result["width"], result["height"]) == ("scene.png", picture.width, picture.height)
    assert result["objects"][0]["category_name"] == "object"
    assert answer.json()["milliseconds"]["total"] > 0


def test_all_forms_of_a_request_give_the_same(client, png):
    text = base64.b64encode(png).decode()
    form = client.post("/v1/detect?threshold=0.3", files={"image": png})
    raw = client.post("/v1/detect?threshold=0.3", content=png, headers={"Content-Type": "image/png"})
    json = client.post("/v1/detect", json={"images": [{"base64": text}], "threshold": 0.3})
    address = client.post(
        "/v1/detect", json={"images": [{"base64": f"data:image/png;base64,{text}"}], "threshold": 0.3}
    )
    assert len(boxes_of(form))
    for other in (raw, json, address):
        np.testing.assert_array_equal(boxes_of(other), boxes_of(form))


def test_several_images_are_answered_in_order(client, picture, png):
    small = encoded(picture.resize((128, 96)))
    answer = client.post("/v1/detect", files=[("image", ("a.png", png)), ("image", ("b.png", small))])
    assert [(each["name"], each["width"]) for each in answer.json()["images"]] == [
        ("a.png", picture.width),
        ("b.png", 128),
    ]


def test_top_and_threshold_select(client, png):
    def objects(**fields):
        answer = client.post("/v1/detect", files={"image": png}, data=fields).json()
        return answer["images"][0]["objects"]

    everything = objects(threshold=0)
    assert objects(threshold=0, top=2) == everything[:2]
    least = everything[3]["score"]
    assert objects(threshold=least) == everything[:4]
    assert objects(threshold=1) == []


def test_threshold_auto_is_that_of_the_model(client, starter, picture, png):
    answer = client.post("/v1/detect?threshold=auto", files={"image": png})
    assert len(boxes_of(answer)) == len(starter.predict(picture, "auto"))


def test_classes_select_by_name_or_id(client, png):
    def count(classes):
        answer = client.post("/v1/detect?threshold=0.1", files={"image": png}, data={"classes": classes})
        return len(boxes_of(answer))

    assert count("object") == count("1") > 0
    message = refusal(client.post("/v1/detect", files={"image": png}, data={"classes": "objekt"}), 422)
    assert "no category 'objekt' (did you mean 'object'?)" in message


def test_coco_form(client, png):
    answer = client.post("/v1/detect?format=coco&threshold=0.3", files={"image": ("a.png", png)}).json()
    corners = boxes_of(client.post("/v1/detect?threshold=0.3", files={"image": png}))
    assert answer["images"][0]["file_name"] == "a.png"
    assert answer["categories"] == [{"id": 1, "name": "object"}]
    x, y, width, height = answer["annotations"][0]["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], corners[0], atol=1e-3)


def test_a_picture_is_given_to_who_accepts_one(client, picture, png):
    answer = client.post("/v1/detect?threshold=0.3", files={"image": png}, headers={"Accept": "image/jpeg"})
    assert answer.headers["content-type"] == "image/jpeg"
    drawn = Image.open(io.BytesIO(answer.content))
    assert drawn.size == picture.size
    assert np.abs(np.asarray(drawn, int) - np.asarray(picture, int)).max() > 100  # boxes


def test_large_images_are_decoded_one_at_a_time(serving, monkeypatch):
    """A file of a few kilobytes may hold millions of pixels, and many of them would fill the memory."""
    monkeypatch.setattr("conditional_detr.serve.service._LARGE", 1000)
    client = serving()
    inside, most = [], []

    def slow(content, name, *, max_pixels):
        inside.append(name)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return decode_image(content, name, max_pixels=max_pixels)

    monkeypatch.setattr("conditional_detr.serve.service.decode_image", slow)
    blank = encoded(Image.new("1", (400, 300)))
    answer = client.post("/v1/detect", files=[("image", blank)] * 4)
    assert [(each["width"], each["height"]) for each in answer.json()["images"]] == [(400, 300)] * 4
    assert most == [1, 1, 1, 1]


def test_pictures_of_two_images_are_refused(client, png):
    answer = client.post("/v1/detect?format=picture", files=[("image", png), ("image", png)])
    assert "a picture shows one image, and the request has 2" in refusal(answer, 422)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"threshold": "2"}, "threshold: input should be less than or equal to 1"),
        ({"threshold": "nan"}, "threshold"),
        ({"threshold": ""}, "threshold"),
        ({"top": "0"}, "top: input should be greater"),
        ({"top": "1e9"}, "top"),
        ({"treshold": "0.5"}, "'treshold' is not a field (did you mean 'threshold'?)"),
        ({"format": "xml"}, "format"),
        ({"image": "text"}, "'image' is text; send a file"),
    ],
)
def test_wrong_fields_are_named(client, png, fields, words):
    message = refusal(client.post("/v1/detect", files={"file": png}, data=fields), 422)
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is not JSON"),
        (b"", "the body is not JSON"),
        (b"[]", "the body"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"images": []}', "images"),
        (b'{"images": [{}]}', "image 1: give either base64 or url"),
        (b'{"images": [{"base64": "x", "url": "y"}]}', "image 1: give either base64 or url"),
        (b'{"images": [{"base64": "%%%"}]}', "image 1: base64 can't be decoded"),
        (b'{"images": [{"base64": "aGFsbG8="}]}', "image 1 is not an image of a known format"),
        (b'{"images": [{"base64": ""}]}', "image 1 is empty"),
        (b'{"images": [{"base64": "aGFsbG8="}], "threshold": "0.5"}', "threshold"),
        (b'{"images": [{"base64": "aGFsbG8="}], "threshold": NaN}', "threshold"),
        (b'{"images": [{"base64": "aGFsbG8="}], "top": true}', "top"),
        (b'{"image": [{"base64": "aGFsbG8="}]}', "images"),
    ],
)
def test_wrong_json_is_explained(client, body, words):
    answer = client.post("/v1/detect", content=body, headers={"Content-Type": "application/json"})
    assert words in refusal(answer, 422)


def test_what_is_no_image_is_refused_by_name(client, png):
    def message(content):
        return refusal(client.post("/v1/detect", files={"image": ("photo.jpg", content)}), 422)

    assert message(b"GIF89a") == "photo.jpg is not an image of a known format; replace or remove the file"
    assert message(b"") == "photo.jpg is empty; replace or remove the file"
    assert message(png[: len(png) // 2]).startswith("image photo.jpg is damaged")


def test_a_form_without_images_and_other_content_are_refused(client, png):
    assert "the form holds no image" in refusal(client.post("/v1/detect", files={"top": (None, "3")}), 422)
    assert "form field 'photo' holds a file" in refusal(client.post("/v1/detect", files={"photo": png}), 422)
    assert "content type 'none'" in refusal(client.post("/v1/detect", content=png), 415)
    assert "'text/plain' can't be read" in refusal(
        client.post("/v1/detect", content="hello", headers={"Content-Type": "text/plain"}), 415
    )
    broken = client.post("/v1/detect", content=b"--x\r\nnonsense", headers={"Content-Type": "multipart/form-data"})
    assert broken.status_code == 400
    assert "boundary" in refusal(broken, 400).lower()


def test_limits_on_bytes_pixels_and_images(serving, picture, png):
    client = serving(max_bytes=len(png) + 500, max_pixels=picture.width * picture.height - 1, max_images=2)
    assert f"more than the {client.service.settings.max_pixels} allowed" in refusal(
        client.post("/v1/detect", files={"image": png}), 422
    )
    answer = client.post("/v1/detect", files={"image": png + bytes(1000)})
    assert "larger than" in refusal(answer, 413)

    def parts():  # without a length in the headers
        for _ in range(10):
            yield bytes(len(png))

    answer = client.post("/v1/detect", content=parts(), headers={"Content-Type": "image/png"})
    assert "larger than" in refusal(answer, 413)
    answer = client.post("/v1/detect", files=[("image", b"x")] * 3)
    assert "Maximum number of files is 2" in refusal(answer, 400)


def test_attention_is_that_of_the_library(client, starter, picture, png):
    answer = client.post("/v1/attention?top=3&layer=1", files={"image": png})
    assert answer.status_code == 200
    found, expected = answer.json(), explain(starter, picture, 1, top=3)

    assert [each["query"] for each in found["queries"]] == expected.queries.tolist()
    shape = (found["heads"], found["rows"], found["columns"])
    for part in ("combined", "spatial", "content"):
        values = np.frombuffer(base64.b64decode(found["queries"][0][part]), np.uint8).reshape(shape)
        maps = getattr(expected.maps, part)[0].numpy()
        np.testing.assert_allclose(values / 255, maps / maps.max((1, 2), keepdims=True), atol=1 / 255)
    np.testing.assert_allclose(found["reference_points"], expected.reference_points.numpy(), atol=1e-3)


def test_attention_of_a_layer_that_is_not_there_is_refused(client, png):
    message = refusal(client.post("/v1/attention?layer=9", files={"image": png}), 422)
    assert message == "layer 9 does not exist; the decoder has layers 1 to 2"


def test_addresses_and_methods_that_do_not_exist(client):
    assert "/v1/detekt does not exist here" in refusal(client.get("/v1/detekt"), 404)
    assert "does not take GET" in refusal(client.get("/v1/detect"), 405)


def test_the_description_names_every_route_and_is_complete(client):
    description = client.get("/openapi.json").json()
    assert {"/v1/detect", "/v1/attention", "/v1/model", "/livez", "/readyz", "/metrics"} <= set(description["paths"])
    content = description["paths"]["/v1/detect"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "image/*", "application/json"}
    names = set(description["components"]["schemas"])
    text = client.get("/openapi.json").text
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in names
    page = client.get("/docs").text
    assert "https://" not in page  # works without the internet
    assert client.get("/docs/files/swagger-ui-bundle.js").status_code == 200
