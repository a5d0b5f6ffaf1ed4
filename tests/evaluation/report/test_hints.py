"""Hints name what stands out, with its number and a remedy."""

from conditional_detr.architecture import Architecture
from conditional_detr.evaluation.report.hints import hints
from conditional_detr.input_size import InputSize
from conditional_detr.record import Categories, ModelRecord
from tests.evaluation.report.cases import CAT, CATEGORIES, DOG, analyzed, annotations, results

RECORD = ModelRecord(Architecture(), CATEGORIES, InputSize((100, 200)))


def sentences(data, found, record=RECORD) -> str:
    return "\n".join(f"{each.finding} -> {each.remedy}" for each in hints(analyzed(data, found), record))


def test_a_rare_small_category_needs_images_and_size():
    cats = [(CAT, 0, 0, 50, 50), (CAT, 50, 50, 50, 50), (CAT, 50, 0, 40, 40), (CAT, 0, 50, 40, 40)] * 3
    data = annotations(*[[*cats, (DOG, 5, 5, 8, 8)]] * 10)
    found = results(*[[(id_, 0.9, *box) for id_, *box in cats]] * 10)
    text = sentences(data, found)
    assert "'dog' has AP50 0.00, below the mean of 0.50; it makes up 8% of the boxes and is small (8 pixels" in text
    assert "Add images with it; train with larger images" in text


def test_sizes_are_those_that_the_network_sees():
    data = annotations(*[[(CAT, 0, 0, 50, 50), (DOG, 5, 5, 20, 20)]] * 10)
    found = results(*[[(CAT, 0.9, 0, 0, 50, 50)]] * 10)
    assert "20 pixels" in sentences(data, found)
    larger = ModelRecord(Architecture(), CATEGORIES, InputSize((400, 800)))
    assert "neither rare nor small" in sentences(data, found, larger)


def test_confused_pairs_and_costly_errors():
    data = annotations(*[[(CAT, 0, 0, 50, 50), (DOG, 60, 60, 20, 20)]] * 10)
    found = results(*[[(CAT, 0.9, 0, 0, 50, 50), (CAT, 0.95, 60, 60, 20, 20)]] * 10)
    text = sentences(data, found)
    assert "10 of 10 'dog' are detected as 'cat'." in text
    assert "this costs 0.75 of AP50 (error 'class', 10 times" in text
    assert "10 confident detections contradict the annotations" in text


def test_nothing_found_and_nothing_annotated():
    assert "No detection finds an object. -> Train longer" in sentences(annotations([(CAT, 0, 0, 9, 9)]), [])
    assert sentences(annotations([]), results([(CAT, 0.9, 0, 0, 9, 9)])) == ""


def test_thresholds_queries_and_few_objects():
    data = annotations([(CAT, 10 * (i % 10), 10 * (i // 10), 9, 9) for i in range(9)])
    found = results([(CAT, 0.2, 10 * (i % 10), 10 * (i // 10), 9, 9) for i in range(9)])
    record = ModelRecord(Architecture(queries=10), CATEGORIES, InputSize((100, 200)))
    text = sentences(data, found, record)
    assert "The best threshold for all categories together is 0.10 (F1 1.00; with 0.5 it is 0.00)" in text
    assert (
        "The fullest image has 9 objects, and the model has 10 queries, each for one object. -> Train with model.queries=30."
        in text
    )
    assert "'cat' has fewer than 10 objects" in text


def test_all_is_well():
    data = annotations(*[[(1, 0, 0, 50, 50), (2, 60, 60, 30, 30)]] * 10, categories=Categories((1, 2), ("a", "b")))
    found = results(*[[(1, 0.99, 0, 0, 50, 50), (2, 0.99, 60, 60, 30, 30)]] * 10)
    assert sentences(data, found) == ""
