"""The Open Inference Protocol's REST form (V2), for clients of KServe and Triton, with Triton's extension for binary tensors.

The model has one input, ``image``: UINT8 ``[batch, height, width, 3]`` RGB, or BYTES ``[batch]``, image files (in base64 where the
tensor is JSON). Outputs, with ``n`` the most detections of an image (100, or the parameter ``top``): ``boxes`` FP32 ``[batch, n, 4]`` (x0, y0, x1, y1 in pixels), ``scores`` FP32 ``[batch, n]``,
``labels`` INT64 ``[batch, n]`` (category ids), ``counts`` INT64 ``[batch]``. After the first ``counts`` rows, boxes and scores are 0 and
labels -1. Parameters of a request: ``threshold`` (0 by default), ``top``.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Path, Request
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from conditional_detr import __version__
from conditional_detr.inference.postprocess import PUBLISHED_COUNT
from conditional_detr.serve.answering import answered
from conditional_detr.serve.refusals import Refusal, invalid, too_large
from conditional_detr.serve.requests import Filter, decode_base64, read_filter, read_json
from conditional_detr.serve.schemas import Options, Threshold
from conditional_detr.serve.service import Service, Upload
from conditional_detr.structures import Detections

_PLATFORM = "conditional_detr"
_LENGTH_HEADER = "inference-header-content-length"  # of the JSON in front of binary tensors
_OUTPUTS = {
    "boxes": ("FP32", [-1, -1, 4]),
    "scores": ("FP32", [-1, -1]),
    "labels": ("INT64", [-1, -1]),
    "counts": ("INT64", [-1]),
}
_MOST = 1000  # detections of an image


class _Lenient(BaseModel):
    """Unknown fields are kept out, because the protocol lets clients add extensions."""

    model_config = ConfigDict(extra="ignore")


class InputTensor(_Lenient):
    name: str
    shape: list[Annotated[int, Field(ge=0)]]
    datatype: Literal["UINT8", "BYTES"]
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class OutputRequest(_Lenient):
    name: Literal["boxes", "scores", "labels", "counts"]
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferParameters(_Lenient):
    threshold: Threshold = 0.0
    top: Annotated[int, Field(ge=1, le=_MOST)] = PUBLISHED_COUNT
    binary_data_output: bool = False


class InferRequest(_Lenient):
    """A request for inference."""

    id: str | None = None
    parameters: InferParameters = Field(default_factory=InferParameters)
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: list[OutputRequest] | None = None


def add_inference_protocol(app: FastAPI, service: Service, errors: dict[int | str, dict[str, Any]]) -> None:
    """Add the routes of the protocol. errors: answers that any of them may give."""
    name = service.settings.name

    def check(model: str, version: str | None = None) -> None:
        if model != name or version not in (None, service.loaded.version):
            wanted = model if version is None else f"{model} version {version}"
            raise Refusal(404, "no_model", f"model {wanted[:80]!r} is not served here; this is {name}")

    def ready(model: Annotated[str, Path()], version: str | None = None) -> Response:
        check(model, version)
        return JSONResponse({"name": name, "ready": not service.stopping}, 503 if service.stopping else 200)

    def metadata(model: Annotated[str, Path()], version: str | None = None) -> dict[str, Any]:
        check(model, version)
        return {
            "name": name,
            "versions": [service.loaded.version],
            "platform": _PLATFORM,
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
            "outputs": [{"name": key, "datatype": kind, "shape": shape} for key, (kind, shape) in _OUTPUTS.items()],
        }

    async def infer(request: Request, model: Annotated[str, Path()], version: str | None = None) -> Response:
        check(model, version)
        return await _infer(request, service)

    schema = {"$ref": "#/components/schemas/InferRequest"}
    tags: list[Any] = ["open inference protocol"]
    app.get("/v2", tags=tags, summary="The server")(
        lambda: {"name": _PLATFORM, "version": __version__, "extensions": ["binary_tensor_data"]}
    )
    app.get("/v2/health/live", tags=tags, summary="Whether the process works")(lambda: {"live": True})
    app.get("/v2/health/ready", tags=tags, summary="Whether requests are accepted", responses={503: {}})(
        lambda: JSONResponse({"ready": not service.stopping}, 503 if service.stopping else 200)
    )
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        app.get(path, tags=tags, summary="Inputs and outputs", responses={404: errors[422]})(metadata)
        app.get(f"{path}/ready", tags=tags, summary="Whether the model is ready", responses={404: errors[422]})(ready)
        app.post(
            f"{path}/infer",
            tags=tags,
            summary="Find the objects in a tensor of images",
            responses={**errors, 404: errors[422]},
            openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
        )(infer)


async def _infer(request: Request, service: Service) -> Response:
    loaded = service.loaded
    body = await request.body()
    text, binary = _split(body, request.headers.get(_LENGTH_HEADER))
    asked = read_json(InferRequest, text)
    uploads = await service.in_thread(partial(_uploads, asked.inputs[0], binary, service.settings.max_images))
    options = Options(threshold=asked.parameters.threshold, top=asked.parameters.top)
    chosen = read_filter(options, loaded.detector, 0.0)
    found = await answered(request, service.detect(uploads, request.state.deadline, loaded))
    request.state.images = len(found)
    tensors = _tensors([each.detections for each in found], chosen)
    return _response(asked, tensors, {"model_name": service.settings.name, "model_version": loaded.version})


def _split(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """Return the JSON of a request, and the binary tensors behind it."""
    if length is None:
        return body, b""
    if not (length.isascii() and length.isdigit()) or int(length) > len(body):
        raise invalid(f"{_LENGTH_HEADER} is {length[:20]!r}; give the number of bytes of the JSON, at most {len(body)}")
    return body[: int(length)], body[int(length) :]


def _uploads(tensor: InputTensor, binary: bytes, most: int) -> list[Upload]:
    """Return the images of an input tensor."""
    if tensor.name != "image":
        raise invalid(f"input {tensor.name[:60]!r} does not exist; the input is named 'image'")
    size = tensor.parameters.get("binary_data_size")
    if (tensor.data is None) == (size is None):
        raise invalid("input 'image': give either data or the parameter binary_data_size")
    if size is not None and (type(size) is not int or size != len(binary)):
        raise invalid(
            f"input 'image': binary_data_size is {str(size)[:20]}, and {len(binary)} bytes follow the JSON; correct it"
        )
    shape = tensor.shape
    if not shape or not 1 <= shape[0] <= most:
        raise too_large(f"input 'image' has shape {shape[:8]}; send 1 to {most} images at once")
    if tensor.datatype == "BYTES":
        files = _elements(binary) if size is not None else [_file(each) for each in tensor.data or ()]
        if len(shape) != 1 or len(files) != shape[0]:
            raise invalid(
                f"input 'image' has shape {shape[:8]} and {len(files)} files; BYTES has shape [number of files]"
            )
        return [Upload(f"image {i}", content) for i, content in enumerate(files, 1)]
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise invalid(f"input 'image' has shape {shape[:8]}; UINT8 has shape [batch, height, width, 3], RGB")
    try:
        values = np.frombuffer(binary, np.uint8) if size is not None else _numbers(tensor.data)
        pixels = values.reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid(f"input 'image': data does not fit shape {shape} of UINT8 ({error}); correct it") from error
    return [Upload(f"image {i}", Image.fromarray(each)) for i, each in enumerate(pixels, 1)]


def _numbers(data: Any) -> np.ndarray:
    values = np.asarray(data)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise ValueError("values must be whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _file(element: Any) -> bytes:
    if not isinstance(element, str):
        raise invalid("input 'image': elements of BYTES must be texts, image files in base64")
    return decode_base64(element, "input 'image'")


def _elements(binary: bytes) -> list[bytes]:
    """Return the elements of a binary BYTES tensor: each has its length in front, 4 bytes, little-endian."""
    found: list[bytes] = []
    place = 0
    while place < len(binary):
        length = struct.unpack_from("<I", binary, place)[0] if place + 4 <= len(binary) else len(binary)
        if place + 4 + length > len(binary):
            raise invalid("input 'image': a BYTES element is cut short; correct binary_data_size")
        found.append(binary[place + 4 : place + 4 + length])
        place += 4 + length
    return found


def _tensors(found: Sequence[Detections], chosen: Filter) -> Mapping[str, np.ndarray]:
    kept = [chosen.of(each) for each in found]
    most = max(map(len, kept))
    boxes = np.zeros((len(kept), most, 4), np.float32)
    scores = np.zeros((len(kept), most), np.float32)
    labels = np.full((len(kept), most), -1, np.int64)
    for i, each in enumerate(kept):
        boxes[i, : len(each)], scores[i, : len(each)], labels[i, : len(each)] = each.boxes, each.scores, each.labels
    return {"boxes": boxes, "scores": scores, "labels": labels, "counts": np.array([len(each) for each in kept])}


def _response(asked: InferRequest, tensors: Mapping[str, np.ndarray], head: dict[str, Any]) -> Response:
    """Return the answer, with binary tensors behind the JSON where the request asks for them."""
    outputs: list[dict[str, Any]] = []
    binary = b""
    for wanted in asked.outputs or [OutputRequest(name=name) for name in _OUTPUTS]:  # pyright: ignore[reportArgumentType]
        values = tensors[wanted.name]
        output: dict[str, Any] = {
            "name": wanted.name,
            "datatype": _OUTPUTS[wanted.name][0],
            "shape": list(values.shape),
        }
        if wanted.parameters.get("binary_data", asked.parameters.binary_data_output) is True:
            content = values.tobytes()
            output["parameters"] = {"binary_data_size": len(content)}
            binary += content
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    content = json.dumps({**head, **({"id": asked.id} if asked.id else {}), "outputs": outputs}).encode()
    if not binary:
        return Response(content, media_type="application/json")
    headers = {_LENGTH_HEADER: str(len(content))}
    return Response(content + binary, media_type="application/octet-stream", headers=headers)
