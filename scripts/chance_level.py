"""AP that the same detections get on the wrong images: what a detector scores that has not looked at them.

python scripts/chance_level.py ANNOTATIONS RESULTS

RESULTS is what ``cdetr evaluate --save-predictions`` wrote. The detections of every image are given to the next one, so
class frequencies, box sizes and positions stay what the detector learned, and only their relation to the image is lost.
"""

import json
import sys
from pathlib import Path

from conditional_detr.evaluation.coco import CocoEvaluator


def main() -> None:
    annotations, results = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    ids = [image["id"] for image in json.loads(annotations.read_text(encoding="utf-8"))["images"]]
    following = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    moved = [{**result, "image_id": following[result["image_id"]]} for result in results]
    evaluator = CocoEvaluator(annotations)
    for name, detections in (("as detected", results), ("on the wrong images", moved)):
        values = evaluator.evaluate(detections).values
        print(f"{name}: AP {values['AP']:.3f}, AP50 {values['AP50']:.3f}")


if __name__ == "__main__":
    main()
