"""The numbers of a report as plain containers, for ``report.json``."""

import math
from dataclasses import asdict
from typing import Any, cast

from conditional_detr.evaluation.report.analysis import Analysis
from conditional_detr.evaluation.report.curves import CONFIDENCES, RECALLS, Curve, Operation
from conditional_detr.evaluation.report.hints import Hint

NOTHING = "The validation data has no annotated objects, so nothing can be said about the model: annotate some, or name other data."


def content(analysis: Analysis, hints: list[Hint]) -> dict[str, Any]:
    """Return everything in a report. NaN, which JSON lacks, becomes None."""
    data = analysis.matches.data
    names = data.categories.names
    found: dict[str, Any] = {
        "annotations": str(data.source),
        "images": len(data),
        "objects": analysis.objects,
        "detections": len(analysis.matches.found),
        "max_dets": analysis.metrics.max_dets,
        "note": None if analysis.objects else NOTHING,
        "metrics": analysis.metrics.values,
        "best": _operation(analysis.overall.best),
        "per_class": [
            {
                "category_id": id_,
                "name": name,
                "objects": each.objects,
                "AP": analysis.metrics.per_class[id_],
                "AP50": each.ap50,
                "best": _operation(each.best),
            }
            for id_, name, each in zip(data.categories.ids, names, analysis.classes, strict=True)
        ],
        "errors": [asdict(each) for each in analysis.errors],
        "confusion": {"categories": [*names, "background"], "counts": analysis.confusion.tolist()},
        "calibration": asdict(analysis.calibration),
        "hints": [asdict(each) for each in hints],
        "worst": [asdict(each) for each in analysis.worst],
        "doubtful": [asdict(each) for each in analysis.doubtful],
        "curves": {
            "confidence": CONFIDENCES.tolist(),
            "recall_levels": RECALLS.tolist(),
            "all": _curve(analysis.overall),
            "per_class": [_curve(each) for each in analysis.classes],
        },
    }
    return cast("dict[str, Any]", _plain(found))


def _operation(best: Operation | None) -> dict[str, Any] | None:
    if best is None:
        return None
    return {**asdict(best), "precision": best.precision, "recall": best.recall, "f1": best.f1}


def _curve(curve: Curve) -> dict[str, Any]:
    return {
        "precision": curve.precision.tolist(),
        "recall": curve.recall.tolist(),
        "f1": curve.f1.tolist(),
        "precision_at_recall": curve.interpolated.tolist(),
    }


def _plain(value: Any) -> Any:
    """Return a copy with rounded numbers, and None in the place of NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in cast("list[Any]", value)]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
