"""The model card: a README.md with metadata, which the hub shows and searches."""

import hashlib
import re

from huggingface_hub import EvalResult, ModelCardData

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats.huggingface import differences
from conditional_detr.hub.facts import RunFacts, is_hub_id
from conditional_detr.text import printable

LIBRARY = "conditional-detr"
# Key of an evaluation -> its name in the card, as COCO names it.
_METRICS = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "APs": "AP of small objects",
    "APm": "AP of medium objects",
    "APl": "AP of large objects",
}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!$&])")
_SEAL = re.compile(
    r"\n<!-- written by conditional-detr, unchanged if this is the checksum of the rest: (\w{64}) -->\s*\Z"
)


def card(checkpoint: Checkpoint, repo_id: str, run: RunFacts | None, license: str | None) -> str:
    """Return the text of a model card, sealed so that ``is_ours`` recognizes it."""
    data = _metadata(checkpoint, repo_id, run, license)
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {escaped(repo_id.partition('/')[2])}\n",
        _introduction(checkpoint, run),
        *([] if run is None else [_results(run), _data(run), _settings(run)]),
        _categories(checkpoint),
        _use(checkpoint, repo_id),
    ]
    return sealed("\n".join(part for part in parts if part))


def sealed(text: str) -> str:
    """Return a card with a comment that marks it as one of this package, for as long as nobody changes it."""
    body = text.rstrip()
    return f"{body}\n\n<!-- written by conditional-detr, unchanged if this is the checksum of the rest: {_digest(body)} -->\n"


def is_ours(text: str) -> bool:
    """Tell whether a card is as this package wrote it."""
    text = text.replace("\r\n", "\n")
    seal = _SEAL.search(text)
    return seal is not None and _digest(text[: seal.start()].rstrip()) == seal[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def escaped(text: object) -> str:
    """Return text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", printable(text))


def _metadata(checkpoint: Checkpoint, repo_id: str, run: RunFacts | None, license: str | None) -> ModelCardData:
    kind: str = "conditional-detr" if checkpoint.architecture.decoder == "conditional" else "detr"
    tags = ["object-detection", "vision", "pytorch", kind]
    base = None if run is None or run.init_from is None else run.init_from.partition("@")[0]
    results = [] if run is None else _evaluations(run)
    return ModelCardData(
        license=license,
        library_name=LIBRARY,
        pipeline_tag="object-detection",
        tags=tags,
        base_model=base if base is not None and is_hub_id(base) else None,
        datasets=[run.data_id] if run is not None and run.data_id else None,
        model_name=repo_id.partition("/")[2],
        eval_results=results or None,
    )


def _measured(run: RunFacts) -> dict[str, float]:
    """Return the metrics that could be measured; COCO gives -1 to the others."""
    metrics = run.metrics or {}
    return {name: metrics[key] for key, name in _METRICS.items() if metrics.get(key, -1) >= 0}


def _evaluations(run: RunFacts) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="object-detection",
            task_name="Object detection",
            dataset_type=run.data_id or re.sub(r"[^\w.-]+", "-", run.data),
            dataset_name=printable(run.data),
            dataset_split="validation",
            metric_type="map",
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in _measured(run).items()
    ]


def _introduction(checkpoint: Checkpoint, run: RunFacts | None) -> str:
    architecture = checkpoint.architecture
    kind = "Conditional DETR" if architecture.decoder == "conditional" else "DETR"
    backbone = architecture.backbone if isinstance(architecture.backbone, str) else "a backbone of its own shape"
    parameters = sum(each.numel() for each in checkpoint.model.parameters()) / 1e6
    text = (
        f"A {kind} object detector ([paper](https://arxiv.org/abs/2108.06152)) with {escaped(backbone)}"
        f"{' (DC5)' if architecture.dilation else ''}, {parameters:.2f} million parameters and {architecture.queries} queries."
    )
    if run is not None:
        text += f" It was trained on {escaped(run.data)}"
        text += f", starting from {escaped(run.init_from)}." if run.init_from else "."
    return f"{text}\n"


def _results(run: RunFacts) -> str:
    parts: list[str] = []
    if run.metrics is not None and (measured := _measured(run)):
        rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in measured.items())
        parts.append(
            f"COCO metrics on the validation images after epoch {run.metrics['epoch']:.4g}:\n\n"
            f"| metric | value |\n|---|---|\n{rows}\n"
        )
    parts += [f"![{each.caption}]({each.name})\n" for each in run.pictures]
    return "\n".join(["## Results\n", *parts]) if parts else ""


def _data(run: RunFacts) -> str:
    rows = "\n".join(f"| {each.name} | {each.images} | {each.objects} |" for each in run.splits)
    table = f"\n\n| split | images | objects |\n|---|---|---|\n{rows}" if rows else ""
    return f"## Data\n\n{escaped(run.data)}{table}\n"


def _settings(run: RunFacts) -> str:
    preset = f"The preset is `{run.preset}`. " if run.preset else ""
    rows = "\n".join(f"| `{key}` | {escaped(value)} |" for key, value in run.settings.items())
    table = f"\n\n| setting | value |\n|---|---|\n{rows}" if rows else ""
    return f"## Training\n\n{preset}Settings that differ from the defaults:{table or ' none.'}\n"


def _categories(checkpoint: Checkpoint) -> str:
    categories = zip(checkpoint.categories.ids, checkpoint.categories.names, strict=True)
    rows = "\n".join(f"| {id_} | {escaped(name)} |" for id_, name in categories)
    return f"## Categories\n\n| id | name |\n|---|---|\n{rows}\n"


def _use(checkpoint: Checkpoint, repo_id: str) -> str:
    text = f"""## How to use

```sh
pip install {LIBRARY}
cdetr predict {repo_id} street.jpg
```

```python
from conditional_detr import Detector

detector = Detector.from_pretrained("{repo_id}")
for each in detector.predict("street.jpg", threshold=0.5):
    print(each.name, each.score, each.box)  # x0, y0, x1, y1 in pixels
```
"""
    if differences(checkpoint, timm=checkpoint.architecture.dilation):
        return text
    return f"""{text}
The files are a checkpoint of transformers too, which computes the same outputs from the same pixels:

```python
from transformers import pipeline

detect = pipeline("object-detection", model="{repo_id}")
print(detect("street.jpg", threshold=0.5))
```
"""
