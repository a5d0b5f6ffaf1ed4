"""The page of a report: one HTML file, with its pictures beside it and nothing from the network."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from conditional_detr.evaluation.report.analysis import Analysis
from conditional_detr.evaluation.report.content import NOTHING
from conditional_detr.evaluation.report.errors import KINDS
from conditional_detr.evaluation.report.findings import LISTED, DoubtfulLabel, WorstImage
from conditional_detr.evaluation.report.hints import Hint
from conditional_detr.evaluation.report.pictures import COLORS, caption
from conditional_detr.text import printable

ROWS = 20  # of each list of doubtful labels; report.json has more
_FAULTS = 30  # listed below a picture
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; } p, li { overflow-wrap: anywhere; } th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } img { max-width: 100%; }
.hints li { margin-bottom: .5rem; } .remedy { color: #05623a; } .worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(28rem, 100%), 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-size: 13px; overflow-wrap: anywhere; } .key { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 1em; }
td.text { overflow-wrap: anywhere; } .small { font-size: 13px; color: #555; }
"""
_ABOUT_KINDS = {
    "class": "the place is right (IoU from 0.5), the category is not",
    "place": "the category is right, the box is not (IoU of 0.1 to 0.5)",
    "both": "category and box are wrong (IoU of 0.1 to 0.5 with an object of another category)",
    "duplicate": "the object is found already, by a more confident detection",
    "background": "nothing is annotated there (IoU up to 0.1)",
    "missed": "no detection finds the object, or nearly does (class, place)",
}
_DOUBTS = {
    "not annotated": "Confident detections where nothing is annotated",
    "other category": "Annotations where a confident detection sees another category",
    "found by nothing": "Annotations that no detection reaches, of any category and score",
}


def page(analysis: Analysis, hints: Sequence[Hint], about: Mapping[str, Any], pictures: Mapping[int, str]) -> str:
    """Return the text of the page. about: what was evaluated. pictures: file of each worst image, by index in ``worst``."""
    data = analysis.matches.data
    facts = {**about, "annotations": data.source, "images": len(data), "objects": analysis.objects}
    parts = [
        "<h1>Evaluation report</h1>",
        f"<p>{'<br>'.join(f'{_text(key)}: {_text(value)}' for key, value in facts.items())}</p>",
    ]
    if not analysis.objects:
        parts.append(f"<p><strong>{_text(NOTHING)}</strong></p>")
    else:
        parts += [
            *_hints(hints),
            *_numbers(analysis),
            *_errors(analysis),
            *_worst(analysis.worst, pictures),
            *_doubtful(analysis.doubtful),
        ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Evaluation report</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _hints(hints: Sequence[Hint]) -> Iterable[str]:
    yield "<h2>What stands out</h2>"
    if not hints:
        yield "<p>Nothing.</p>"
        return
    items = (f'<li>{_text(each.finding)} <span class="remedy">{_text(each.remedy)}</span></li>' for each in hints)
    yield f'<ol class="hints">{"".join(items)}</ol>'


def _numbers(analysis: Analysis) -> Iterable[str]:
    yield "<h2>Numbers</h2>"
    values = analysis.metrics.values
    yield _table([list(values), [_number(value) for value in values.values()]])
    names, per_class = analysis.matches.data.categories.names, list(analysis.metrics.per_class.values())
    rows: list[list[str]] = [["category", "objects", "AP", "AP50", "best threshold", "precision", "recall", "F1"]]
    labels = [("all", analysis.overall, values["AP"]), *zip(names, analysis.classes, per_class, strict=True)]
    for name, curve, ap in labels:
        best = curve.best
        numbers = (None,) * 4 if best is None else (best.threshold, best.precision, best.recall, best.f1)
        rows.append([name, str(curve.objects), *(_number(value) for value in (ap, curve.ap50, *numbers))])
    yield _table(rows)
    yield (
        '<p class="small">The best threshold has the highest F1 at IoU 0.5. "all" is one threshold for all categories together. '
        "AP and AP50 of all are means over the categories with objects.</p>"
    )
    if analysis.thresholds is None:
        yield "<p>No detection finds an object, so there are no best thresholds.</p>"
    yield '<p><img src="curves.png" alt="precision, recall and F1"></p>'


def _errors(analysis: Analysis) -> Iterable[str]:
    yield "<h2>Errors</h2>"
    rows = [["error", "count", "of any score", "cost in AP50", "meaning"]]
    for each in analysis.errors:
        rows.append([each.kind, str(each.count), str(each.of_all), f"{each.cost:.3f}", _ABOUT_KINDS[each.kind]])
    yield _table(rows, {4})
    yield (
        '<p class="small">Kinds and costs are those of TIDE. The count is at the best threshold of each category. The cost is the '
        "AP50 that would be gained if only the errors of this kind were corrected, at any score.</p>"
    )
    yield '<p><img src="errors.png" alt="cost of errors, AP by size, calibration"></p>'
    error = analysis.calibration.error
    yield (
        "<p>No detection has a score from 0.1, so calibration can't be measured.</p>"
        if error != error
        else f"<p>Calibration error: {error:.3f}, the mean distance of score and precision over detections with a score from 0.1.</p>"
    )
    yield "<h2>Confusion</h2>"
    yield '<p class="small">Detections at the best thresholds. Rows are annotated objects, columns what is detected there.</p>'
    yield '<p><img src="confusion.png" alt="confusion matrix"></p>'


def _worst(worst: Sequence[WorstImage], pictures: Mapping[int, str]) -> Iterable[str]:
    if not worst:
        return
    yield "<h2>Worst images</h2>"
    keys = (f'<span class="key" style="background: rgb{COLORS[kind]}"></span>{kind}' for kind in KINDS)
    yield f'<p class="small">Only what is wrong is drawn.{"".join(keys)}</p>'
    yield '<div class="worst">'
    for i, each in enumerate(worst):
        alike = Counter(caption(fault) for fault in each.faults)
        lines = [text if count == 1 else f"{text} ({count} times)" for text, count in alike.items()]
        more = f", and {len(lines) - _FAULTS} more" if len(lines) > _FAULTS else ""
        counts = Counter(fault.kind for fault in each.faults)
        summary = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
        image = f'<img src="{pictures[i]}" alt="">' if i in pictures else "<p>(the image can't be read)</p>"
        yield (
            f"<figure>{image}<figcaption><strong>{_text(each.file)}</strong><br>{each.correct} of {each.objects} objects found; "
            f"{summary}<br>{_text('; '.join(lines[:_FAULTS]))}{more}</figcaption></figure>"
        )
    yield "</div>"


def _doubtful(doubtful: Sequence[DoubtfulLabel]) -> Iterable[str]:
    yield "<h2>Doubtful labels</h2>"
    if not doubtful:
        yield "<p>None.</p>"
    for kind, title in _DOUBTS.items():
        chosen = [each for each in doubtful if each.kind == kind]
        if not chosen:
            continue
        yield f"<h3>{title}</h3>"
        rows = [["file", "box (x, y, width, height)", "annotated", "detected", "score", "IoU"]]
        for each in chosen[:ROWS]:
            box = ", ".join(f"{value:g}" for value in each.box)
            numbers = [_number(each.score), f"{each.iou:.2f}"]
            rows.append([each.file, box, each.annotated or "-", each.detected or "-", *numbers])
        yield _table(rows, {1, 2, 3})
        if len(chosen) > ROWS:
            yield f'<p class="small">report.json lists more of them, up to {LISTED}</p>'


def _table(rows: Sequence[Sequence[str]], text: Iterable[int] = ()) -> str:
    """Return a table whose first row is its head. text: columns that are aligned to the left besides the first."""
    left = set(text)

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=text' if i in left else ''}>{_text(cell)}</{tag}>" for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows[1:])
    return f"<table><tr>{cells(rows[0], 'th')}</tr>{body}</table>"


def _number(value: float | None) -> str:
    return "-" if value is None or not value >= 0 else f"{value:.3f}"


def _text(value: object) -> str:
    return escape(printable(value))
