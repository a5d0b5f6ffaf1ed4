"""Give all objects of a generated data set one category, "object". Usage: one_category.py DATA

A starter is to learn where objects are. One category is enough for that, because training on photographs replaces the class head.
"""

import json
import sys
from pathlib import Path


def main(data: Path) -> None:
    for file in (data / "annotations").glob("instances_*.json"):
        content = json.loads(file.read_text())
        for each in content["annotations"]:
            each["category_id"] = 1
        content["categories"] = [{"id": 1, "name": "object"}]
        file.write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
