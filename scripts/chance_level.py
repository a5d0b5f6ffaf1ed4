"""Measure the chance level of AP: the AP of the same detections on the wrong images.

python scripts/chance_level.py ANNOTATIONS IMAGES RESULTS

ANNOTATIONS is a COCO file, IMAGES the folder of its images. RESULTS is a file written by ``cdetr evaluate --save-predictions``. The detections of every image are assigned to the next
one, so class frequencies, box sizes and positions stay as learned, and only their relation to the image is lost.
"""

import json
import sys
from pathlib import Path

from conditional_detr.data.reading import read_coco
from conditional_detr.evaluation.coco import CocoEvaluator


def main() -> None:
    annotations = read_coco(Path(sys.argv[1]), [Path(sys.argv[2])])
    results = json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))
    ids = annotations.image_ids.tolist()
    following = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    moved = [{**result, "image_id": following[result["image_id"]]} for result in results]
    evaluator = CocoEvaluator(annotations)
    for name, detections in (("as detected", results), ("on the wrong images", moved)):
        values = evaluator.evaluate(detections).values
        print(f"{name}: AP {values['AP']:.3f}, AP50 {values['AP50']:.3f}")


if __name__ == "__main__":
    main()
