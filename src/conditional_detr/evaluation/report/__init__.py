"""A report on the detections of a model: where it is right, what goes wrong, what that costs, and what may help.

``match`` and ``analyze`` take arrays and return dataclasses; ``write_report`` draws and writes.
"""

from conditional_detr.evaluation.report.analysis import Analysis, analyze, thresholds_for, thresholds_from
from conditional_detr.evaluation.report.folder import PAGE, TOLD, read_info, refuse_others, write_report
from conditional_detr.evaluation.report.matching import Found, Matches, check_categories, match

__all__ = [
    "PAGE",
    "TOLD",
    "Analysis",
    "Found",
    "Matches",
    "analyze",
    "check_categories",
    "match",
    "read_info",
    "refuse_others",
    "thresholds_for",
    "thresholds_from",
    "write_report",
]
