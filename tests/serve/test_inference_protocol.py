"""The Open Inference Protocol: what clients of KServe and Triton send, as JSON and with binary tensors."""

import base64
import json
import struct

import numpy as np
import pytest

from tests.serve.test_detection import refusal

ADDRESS = "/v2/models/detector/infer"


def values(answer, name):
    output = next(each for each in answer.json()["outputs"] if each["name"] == name)
    return np.array(output["data"]).reshape(output["shape"])


def tensor(picture, **others):
    pixels = np.asarray(picture)[None]
    return {
        "name": "image",
        "datatype": "UINT8",
        "shape": list(pixels.shape),
        "data": pixels.ravel().tolist(),
        **others,
    }


def test_health_and_metadata(client):
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    metadata = client.get("/v2/models/detector").json()
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert [each["name"] for each in metadata["outputs"]] == ["boxes", "scores", "labels", "counts"]
    (version,) = metadata["versions"]
    assert client.get(f"/v2/models/detector/versions/{version}/ready").json() == {"name": "detector", "ready": True}
    assert "model 'other' is not served here; this is detector" in refusal(client.get("/v2/models/other"), 404)
    assert client.get("/v2/models/detector/versions/9/ready").status_code == 404


def test_a_tensor_gives_what_the_detector_finds(client, starter, picture):
    expected = starter.predict(picture, 0.0)
    answer = client.post(ADDRESS, json={"id": "7", "inputs": [tensor(picture)]})
    assert answer.status_code == 200
    assert answer.json()["id"] == "7"
    assert answer.json()["model_name"] == "detector"
    count = values(answer, "counts")[0]
    assert count == min(100, len(expected))
    np.testing.assert_allclose(values(answer, "boxes")[0], expected.boxes[:count].numpy(), atol=1e-3)
    np.testing.assert_allclose(values(answer, "scores")[0], expected.scores[:count].numpy(), atol=1e-6)
    assert (values(answer, "labels") == 1).all()


def test_files_in_base64_with_threshold_and_top(client, starter, picture, png):
    expected = starter.predict(picture, 0.3)
    body = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png).decode()]}],
        "parameters": {"threshold": 0.3, "top": 50},
        "outputs": [{"name": "scores"}],
    }
    answer = client.post(ADDRESS, json=body)
    assert [each["name"] for each in answer.json()["outputs"]] == ["scores"]
    np.testing.assert_allclose(values(answer, "scores")[0], expected.scores.numpy(), atol=1e-6)


def test_images_with_fewer_objects_are_filled_up(client, picture):
    pixels = np.stack([np.asarray(picture), np.full_like(np.asarray(picture), 128)])
    body = {
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.tolist()}],
        "parameters": {"threshold": 0.3},
    }
    answer = client.post(ADDRESS, json=body)
    counts, labels, scores = (values(answer, name) for name in ("counts", "labels", "scores"))
    assert counts[0] > counts[1]
    for row in range(2):
        assert (labels[row, counts[row] :] == -1).all()
        assert (scores[row, counts[row] :] == 0).all()
        assert (scores[row, : counts[row]] >= 0.3).all()


def test_binary_tensors_in_both_directions(client, picture, png):
    as_json = client.post(ADDRESS, json={"inputs": [tensor(picture)]})

    def binary(content, datatype, shape):
        size = {"binary_data_size": len(content)}
        head = json.dumps(
            {
                "inputs": [{"name": "image", "datatype": datatype, "shape": shape, "parameters": size}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        return client.post(ADDRESS, content=head + content, headers={"Inference-Header-Content-Length": str(len(head))})

    pixels = np.asarray(picture)
    for answer in (
        binary(pixels.tobytes(), "UINT8", [1, *pixels.shape]),
        binary(struct.pack("<I", len(png)) + png, "BYTES", [1]),
    ):
        length = int(answer.headers["Inference-Header-Content-Length"])
        outputs, rest = json.loads(answer.content[:length])["outputs"], answer.content[length:]
        for output in outputs:
            size = output["parameters"]["binary_data_size"]
            dtype = {"FP32": np.float32, "INT64": np.int64}[output["datatype"]]
            found, rest = np.frombuffer(rest[:size], dtype).reshape(output["shape"]), rest[size:]
            np.testing.assert_allclose(found, values(as_json, output["name"]), rtol=1e-6)
        assert not rest


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"name": "pixels"}, 422, "the input is named 'image'"),
        ({"shape": [1, 2, 2, 4]}, 422, "UINT8 has shape [batch, height, width, 3]"),
        ({"shape": [1, 2, 2, 3], "data": [1, 2]}, 422, "does not fit shape"),
        ({"shape": [1, 1, 1, 3], "data": [1, 2, 256]}, 422, "from 0 to 255"),
        ({"shape": [1, 1, 1, 3], "data": [1, 2, 0.5]}, 422, "from 0 to 255"),
        ({"shape": [1, 1, 1, 3], "data": [1, [2], 3]}, 422, "does not fit shape"),
        ({"shape": [1, 1, 1, 3], "data": ["a", "b", "c"]}, 422, "does not fit shape"),
        ({"shape": [1, 10**18, 10**18, 3], "data": [1]}, 422, "does not fit shape"),
        ({"shape": [99, 1, 1, 3], "data": [1]}, 413, "send 1 to 16 images"),
        ({"shape": [0, 1, 1, 3], "data": []}, 413, "send 1 to 16 images"),
        ({"shape": []}, 413, "send 1 to 16 images"),
        ({"datatype": "FP32"}, 422, "datatype"),
        ({"data": None}, 422, "either data or the parameter binary_data_size"),
        ({"data": None, "parameters": {"binary_data_size": 5}}, 422, "0 bytes follow the JSON"),
        ({"datatype": "BYTES", "shape": [1], "data": [5]}, 422, "must be texts"),
        ({"datatype": "BYTES", "shape": [2], "data": ["aGFsbG8="]}, 422, "shape [2] and 1 files"),
        ({"datatype": "BYTES", "shape": [1], "data": ["aGFsbG8="]}, 422, "not an image of a known format"),
    ],
)
def test_wrong_tensors_are_explained(client, picture, change, status, words):
    small = picture.resize((4, 4))
    answer = client.post(ADDRESS, json={"inputs": [tensor(small, **change)]})
    assert words in refusal(answer, status)


@pytest.mark.parametrize("length", ["-1", "99999", "x", ""])
def test_a_wrong_length_of_the_json_is_refused(client, length):
    answer = client.post(ADDRESS, content=b"{}", headers={"Inference-Header-Content-Length": length})
    assert "inference-header-content-length" in refusal(answer, 422)


def test_a_cut_binary_element_is_refused(client):
    content = struct.pack("<I", 100) + b"short"
    head = json.dumps(
        {
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(content)}}
            ]
        }
    ).encode()
    answer = client.post(ADDRESS, content=head + content, headers={"Inference-Header-Content-Length": str(len(head))})
    assert "cut short" in refusal(answer, 422)


def test_a_client_of_triton_is_answered(serving, starter, picture, live):
    """Triton's own Python client, over a real connection."""
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    with live() as address, triton.InferenceServerClient(address.removeprefix("http://")) as remote:
        assert remote.is_server_live()
        assert remote.is_model_ready("detector")
        pixels = np.asarray(picture)[None]
        given = triton.InferInput("image", list(pixels.shape), "UINT8")
        given.set_data_from_numpy(pixels)
        answer = remote.infer("detector", [given])
    expected = starter.predict(picture, 0.0)
    count = answer.as_numpy("counts")[0]
    np.testing.assert_allclose(answer.as_numpy("boxes")[0], expected.boxes[:count].numpy(), atol=1e-3)
