"""Give all objects of generated scenes one category. Usage: one_category.py FOLDER

A starter is to learn where objects are. One category is enough for that, because training on photographs
replaces the class head.
"""

import json
import sys
from pathlib import Path

for file in (Path(sys.argv[1]) / "annotations").glob("*.json"):
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 1, "name": "object"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    file.write_text(json.dumps(content))
