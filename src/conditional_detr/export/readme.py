"""The README beside an exported model."""

from conditional_detr.data.images import IMAGENET_MEAN, IMAGENET_STD
from conditional_detr.exports import ExportRecord

_RULES = {
    "published": "Scale the shorter side to {0} pixels, and the longer one to at most {1}.",
    "transformers": "Scale the shorter side to {0} pixels, and the longer one to at most {1}.",
    "fit": "Scale to the largest size within {0} x {1} (height x width) that keeps the proportions.",
    "stretch": "Scale to exactly {0} x {1} (height x width).",
}
_FRAMES = {
    "image": "of the image, without padding",
    "padded": "of the padded image",
    "padded-with-mask": "of the padded image",
}

_TEXT = """# {title}

An object detector for {count} categories: {names}. Written by conditional-detr (`cdetr export`).

## Inputs

| name | type | shape |
|---|---|---|
| `pixels` | float32 | `[{batch}, 3, {height}, {width}]` |
| `padding_mask` | bool | `[{batch}, {height}, {width}]` |

1. Turn the image as its EXIF orientation says, and convert it to RGB.
2. {rule} Use bilinear interpolation with antialiasing, as Pillow does. Without antialiasing scores change.
3. Divide by 255, subtract the mean {mean} and divide by the standard deviation {std} of the channels red, green, blue.
4. Pad with 0 at the right and at the bottom{padding}. {mask}

## Outputs

| name | type | shape | meaning |
|---|---|---|---|
| `logits` | float32 | `[{batch}, {queries}, {logits}]` | class scores of each query before the {function} |
| `boxes` | float32 | `[{batch}, {queries}, 4]` | center x, center y, width, height in 0..1 {frame} |
{found}
No non-maximum suppression is needed.

## Files

{files}
The record in the metadata of the model (key `conditional_detr`, JSON) holds categories, sizes, and the proof of this export:

{proof}
"""
_FOUND = """| `scores` | float32 | `[{batch}, {top}]` | best first, in 0..1 |
| `category_ids` | int64 | `[{batch}, {top}]` | category ids, as in the training data |
| `corners` | float32 | `[{batch}, {top}, 4]` | x0, y0, x1, y1 in 0..1 {frame} |
"""


def readme(export: ExportRecord, top: int, files: dict[str, str], proof: list[str]) -> str:
    """Return the text. top: number of detections in the outputs. files: name -> meaning. proof: lines of a table."""
    record, size = export.model, export.model.input_size
    names = ", ".join(
        f"{name} ({id_})" for id_, name in zip(record.categories.ids, record.categories.names, strict=True)
    )
    height, width = export.size or ("height", "width")
    shape = {"batch": export.batch or "batch", "height": height, "width": width}
    frame = _FRAMES[size.boxes]
    padded = "" if size.padded is None else f" to {size.padded[0]} x {size.padded[1]} (height x width) or more"
    mask = "`padding_mask` is true for padding." if size.mask else "`padding_mask` is false everywhere."
    return _TEXT.format(
        title="Conditional DETR" if record.architecture.decoder == "conditional" else "DETR",
        count=len(record.categories),
        names=names,
        rule=_RULES[size.rule].format(*size.sides),
        mean=list(IMAGENET_MEAN),
        std=list(IMAGENET_STD),
        padding=padded or ", to the largest height and width of the batch",
        mask=mask,
        queries=record.architecture.queries,
        logits=record.architecture.logits(len(record.categories)),
        function='softmax, whose last class is "no object"' if record.architecture.softmax else "sigmoid",
        frame=frame,
        found=_FOUND.format(top=top, frame=frame, **shape) if export.end_to_end else "",
        files="".join(f"- `{name}`: {meaning}\n" for name, meaning in files.items()),
        proof="\n".join(proof),
        **shape,
    )
