"""Malformed requests of every kind: each is answered, and none shows a fault of the server."""

import base64
import json
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("CDETR_FUZZ", "150"))  # docs/serve.md reports 2,000

PATHS = ["/v1/detect", "/v1/attention", "/v2/models/detector/infer", "/v1/model", "/v1/sample", "/v2", "/metrics", "/"]
TYPES = [
    "application/json",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "image/png",
    "text/plain",
    "",
    "image/*;;",
]
NAMES = ["threshold", "top", "classes", "format", "images", "base64", "url", "name", "inputs", "shape", "data", "datatype", "parameters", "layer", "number", "id", "outputs", "binary_data_size"]  # fmt: skip
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["auto", "coco", "picture", "image", "UINT8", "BYTES", "boxes", "http://localhost/", "object"])
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)
headers = st.dictionaries(
    st.sampled_from(["Inference-Header-Content-Length", "X-Request-ID", "Authorization", "Accept", "Content-Length"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    max_size=2,
)


@st.composite
def bodies(draw, png: bytes) -> bytes:
    kind = draw(st.sampled_from(["bytes", "json", "likely", "image", "tensor", "form"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "json":
        return json.dumps(draw(trees)).encode()
    if kind == "likely":
        image = draw(
            st.sampled_from([{"base64": base64.b64encode(png).decode()}, {"base64": "x"}, {"url": "http://a/"}, {}])
        )
        extra = draw(st.dictionaries(st.sampled_from(NAMES), trees, max_size=3))
        return json.dumps({"images": [image], **extra}).encode()
    if kind == "tensor":
        shape = draw(st.lists(st.integers(-1, 4) | st.integers(), max_size=5))
        tensor = {"name": "image", "datatype": draw(st.sampled_from(["UINT8", "BYTES", "X"])), "shape": shape}
        tensor |= draw(st.dictionaries(st.sampled_from(["data", "parameters"]), trees, max_size=2))
        return json.dumps(
            {"inputs": [tensor], **draw(st.dictionaries(st.sampled_from(NAMES), trees, max_size=2))}
        ).encode()
    if kind == "form":
        name, text = draw(st.sampled_from([*NAMES, "image"])), draw(st.binary(max_size=30))
        disposition = draw(st.sampled_from(["form-data", "form-data; filename=a", "x", ""]))
        return (
            b"--x\r\nContent-Disposition: "
            + f'{disposition}; name="{name}"'.encode()
            + b"\r\n\r\n"
            + text
            + b"\r\n--x--\r\n"
        )
    damaged = bytearray(png)
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(png) - 1), st.integers(0, 255)), max_size=8)):
        damaged[place] = value
    return bytes(damaged[: draw(st.integers(0, len(png)))])


def test_malformed_requests_never_show_a_fault(client, png):
    counts: dict[int, int] = {}

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    @given(
        st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE"]),
        st.sampled_from(PATHS)
        | st.text(st.characters(min_codepoint=33, exclude_characters="?#", exclude_categories=["C"]), max_size=10).map(
            lambda text: f"/{text}"
        ),
        st.dictionaries(st.sampled_from(NAMES), st.text(max_size=8), max_size=2),
        st.sampled_from(TYPES),
        headers,
        bodies(png),
    )
    def send(method, path, query, kind, others, body):
        others = {key: value for key, value in others.items() if key != "Content-Length"}
        answer = client.request(method, path, params=query, content=body, headers={"Content-Type": kind, **others})
        counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (method, path, query, kind, others, body, answer.text)
        if answer.status_code >= 400:
            assert answer.json()["error"]["message"]

    send()
    assert len(counts) >= 3  # else the requests are all of one kind
    print(counts)
