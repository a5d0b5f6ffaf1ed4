"""What a run says before its first step: data, categories, network, and what may go wrong."""

from torch import nn

from conditional_detr.config import ModelSettings
from conditional_detr.data.check import training_warnings
from conditional_detr.data.coco import CocoAnnotations
from conditional_detr.structures import Categories
from conditional_detr.training.report import Reporter


def introduce(
    reporter: Reporter,
    train: CocoAnnotations,
    val: CocoAnnotations,
    settings: ModelSettings,
    model: nn.Module,
    max_dets: int,
    processes: str,
) -> None:
    """Tell the reporter. processes: such as "2 x cuda"."""
    reporter.message(
        f"training on {len(train)} images with {len(train.labels)} objects ({train.file}), "
        f"evaluating on {len(val)} ({val.file}, {max_dets} detections per image)"
    )
    reporter.message(category_table(train.categories))
    from_nothing = settings.backbone_weights is None and settings.init_from is None
    random_backbone = isinstance(settings.backbone, str) and from_nothing
    for text in training_warnings(train, val, settings.queries, random_backbone):
        reporter.warning(text)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    reporter.message(f"{everything / 1e6:.2f} million parameters, {trained / 1e6:.2f} million train; {processes}")


def category_table(categories: Categories) -> str:
    """A line per class: logit index, category id, name."""
    rows = zip(range(len(categories)), categories.ids, categories.names, strict=True)
    return "\n".join(["logit  category id  name", *(f"{i:5d}  {id_:11d}  {name}" for i, id_, name in rows)])
