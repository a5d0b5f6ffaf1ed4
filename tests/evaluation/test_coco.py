"""COCO metrics equal those of pycocotools."""

import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conditional_detr.config import DataSettings
from conditional_detr.data.reading import read_coco, read_split
from conditional_detr.errors import InputError
from conditional_detr.evaluation.coco import NAMES, CocoEvaluator, match_categories, standard_max_dets
from conditional_detr.record import Categories
from tests.conftest import SHARED, needs_shared

CROWDED = SHARED / "data" / "coco_mini" / "annotations" / "instances_val.json"


def random_results(content, seed: int, per_image: int = 40):
    """Return detections near ground truth (including crowds) and at random places, with ties in the scores."""
    rng = np.random.default_rng(seed)
    ids = [category["id"] for category in content["categories"]]
    by_image = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    results = []
    for image in content["images"]:
        for _ in range(per_image):
            known = by_image[image["id"]]
            if known and rng.random() < 0.7:
                annotation = known[rng.integers(len(known))]
                box = np.array(annotation["bbox"]) + rng.normal(0, 0.08, 4) * np.array(annotation["bbox"][2:] * 2)
                category = annotation["category_id"] if rng.random() < 0.9 else int(rng.choice(ids))
            else:
                box = rng.uniform(0, 1, 4) * [image["width"], image["height"], image["width"], image["height"]]
                category = int(rng.choice(ids))
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": int(category),
                    "bbox": [float(v) for v in (*box[:2], *np.maximum(box[2:], 1))],
                    "score": float(round(rng.random(), 2)),
                }
            )
    return results


def oracle(file, results) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@needs_shared("data/coco_mini")
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools_with_crowds(seed):
    content = json.loads(CROWDED.read_text())
    assert any(annotation["iscrowd"] for annotation in content["annotations"])
    results = random_results(content, seed, per_image=130 if seed == 3 else 40)
    metrics = CocoEvaluator(read_coco(CROWDED, [CROWDED.parents[1] / "images"])).evaluate(results)
    expected = oracle(CROWDED, results)
    np.testing.assert_allclose([metrics.values[name] for name in NAMES], expected.stats, atol=1e-9, rtol=0)
    precision = expected.eval["precision"][:, :, :, 0, 2]
    for k, id_ in enumerate(expected.params.catIds):
        valid = precision[:, :, k][precision[:, :, k] > -1]
        assert metrics.per_class[id_] == pytest.approx(valid.mean() if len(valid) else -1, abs=1e-9)
    assert 0.05 < metrics.values["AP"] < 0.95


@pytest.fixture
def truth(shapes_root):
    return shapes_root / "annotations" / "instances_val2017.json"


def perfect(file):
    content = json.loads(file.read_text())
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in content["annotations"]
    ]


def test_perfect_and_empty_results(truth):
    evaluator = CocoEvaluator(read_coco(truth, [truth.parents[1] / "val2017"]))
    assert evaluator.evaluate(perfect(truth)).values["AP"] == pytest.approx(1)
    assert evaluator.evaluate([]).values["AP"] == 0
    assert evaluator.evaluate([]).values["APl"] == -1  # no objects of this size exist, so AP is undefined


def test_optional_keys_may_be_missing(truth, tmp_path):
    content = json.loads(truth.read_text())
    for annotation in content["annotations"]:
        del annotation["iscrowd"]
        if annotation["id"] % 2:
            del annotation["area"]
        else:
            annotation["area"] = None
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content))
    assert CocoEvaluator(read_coco(file, [truth.parents[1] / "val2017"])).evaluate(perfect(truth)).values[
        "AP"
    ] == pytest.approx(1)


def test_annotation_ids_do_not_matter(truth, tmp_path):
    """Exports contain id 0, repeated ids and missing ids, each of which the evaluation library can't handle."""
    content = json.loads(truth.read_text())
    expected = (
        CocoEvaluator(read_coco(truth, [truth.parents[1] / "val2017"])).evaluate(random_results(content, 1)).values
    )
    for change in (lambda i: {"id": i}, lambda i: {"id": 7}, lambda i: {}):
        for i, annotation in enumerate(content["annotations"]):
            annotation.pop("id", None)
            annotation.update(change(i))
        file = tmp_path / "x.json"
        file.write_text(json.dumps(content))
        assert (
            CocoEvaluator(read_coco(file, [truth.parents[1] / "val2017"])).evaluate(random_results(content, 1)).values
            == expected
        )


def test_max_dets_follows_the_data(shapes_root, tmp_path):
    data = read_split(DataSettings(root=shapes_root), "val")
    assert standard_max_dets(data) == 100
    content = json.loads(data.source.read_text())
    image = content["images"][0]["id"]
    content["annotations"] = [
        {"id": i + 1, "image_id": image, "category_id": 1, "bbox": [i % 90, i // 4, 5, 5], "area": 25, "iscrowd": 0}
        for i in range(120)
    ]
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content))
    crowded = read_split(DataSettings(val_annotations=file, val_images=data.folder), "val")
    assert standard_max_dets(crowded) == 120
    evaluator = CocoEvaluator(crowded)
    results = [{**result, "score": 1 - i / 1000} for i, result in enumerate(perfect(file))]
    assert evaluator.evaluate(results, 120).values["AR"] == pytest.approx(1)
    assert evaluator.evaluate(results, 100).values["AR"] == pytest.approx(100 / 120)


def test_categories_are_matched_by_id_then_name(shapes_root):
    data = read_split(DataSettings(root=shapes_root), "val")
    assert match_categories(data.categories, data) == {1: 1, 2: 2, 3: 3}
    wider = Categories((0, 7, 8, 9), ("N/A", "Triangle", "ellipse", "rectangle"))
    assert match_categories(wider, data) == {9: 1, 8: 2, 7: 3}
    with pytest.raises(InputError, match="'triangle', which the model does not know"):
        match_categories(Categories((1, 2), ("rectangle", "ellipse")), data)
    many = Categories(tuple(range(91)), tuple(f"class {i}" for i in range(91)))
    with pytest.raises(InputError, match=r"\(it knows class 0, .*, class 9 and 81 more\)"):
        match_categories(many, data)


def test_names_that_differ_only_in_case_are_told_apart(shapes_root):
    data = read_split(DataSettings(root=shapes_root), "val")
    data = replace(data, categories=Categories((7, 8, 9), ("car", "Car", "bus")))
    model = Categories((1, 2, 3), ("Car", "car", "BUS"))
    assert match_categories(model, data) == {2: 7, 1: 8, 3: 9}
    unused = replace(data, categories=Categories((7, 8, 9, 10), ("car", "x", "bus", "CAR")))  # without boxes
    assert match_categories(Categories((1, 2, 3), ("car", "x", "bus")), unused) == {1: 7, 2: 8, 3: 9}
    for names in (("car", "bus", "x"), ("CAR", "CAr", "bus")):  # one for two of the data, two for one
        with pytest.raises(InputError, match="can't be told apart"):
            match_categories(Categories((1, 2, 3), names), data)
