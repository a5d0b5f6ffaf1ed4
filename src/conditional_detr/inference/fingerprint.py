"""Fingerprint of a model, by which results are kept apart."""

import hashlib
import json
from dataclasses import replace

from conditional_detr.checkpoints.checkpoint import network_state
from conditional_detr.files import checksum
from conditional_detr.inference.detector import Detector


def fingerprint(detector: Detector) -> str:
    """Return 64 hexadecimal digits that differ between models: between weights, architectures, categories, input sizes.

    Thresholds are left out: a report may add them, and where they are used they are written apart.
    """
    record = replace(detector.record, thresholds=None)
    digest = hashlib.sha256(json.dumps(record.to_dict()).encode())
    if detector.exported_file is not None:
        weights = detector.exported_file.with_suffix(".bin")  # of OpenVINO
        for file in (
            (detector.exported_file, weights) if detector.exported_file.suffix == ".xml" else (detector.exported_file,)
        ):
            digest.update(checksum(file).encode())
        return digest.hexdigest()
    for name, values in sorted(network_state(detector.model).items()):
        digest.update(name.encode())
        digest.update(values.cpu().contiguous().flatten().numpy().data)
    return digest.hexdigest()
