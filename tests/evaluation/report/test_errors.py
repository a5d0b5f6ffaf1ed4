"""Kinds of errors, their costs and the confusion matrix, by hand; doubtful labels and the worst images."""

import numpy as np
import pytest

from conditional_detr.evaluation.report.errors import KINDS, error_kinds, missed_objects, nearly_found
from tests.evaluation.report.cases import CAT, DOG, analyzed, annotations, matched, results

OBJECT = (CAT, 0, 0, 10, 10)


def kinds_of(data, found) -> list[str]:
    return [KINDS[kind] if kind >= 0 else "none" for kind in error_kinds(matched(data, found))]


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ((CAT, 0.5, 0, 0, 10, 6), "none"),
        ((CAT, 0.5, 0, 0, 10, 4), "place"),
        ((CAT, 0.5, 0, 0, 10, 1), "place"),  # IoU 0.1
        ((CAT, 0.5, 0, 0, 10, 0.9), "background"),
        ((CAT, 0.5, 50, 50, 10, 10), "background"),
        ((DOG, 0.5, 0, 0, 10, 6), "class"),
        ((DOG, 0.5, 0, 0, 10, 5), "class"),
        ((DOG, 0.5, 0, 0, 10, 4), "both"),
        ((DOG, 0.5, 0, 0, 10, 0.9), "background"),
    ],
)
def test_kinds_of_a_detection(detection, kind):
    assert kinds_of(annotations([OBJECT]), results([detection])) == [kind]


def test_a_second_detection_is_a_duplicate():
    assert kinds_of(annotations([OBJECT]), results([(CAT, 0.5, 0, 0, 10, 10), (CAT, 0.4, 0, 0, 10, 9)])) == [
        "none",
        "duplicate",
    ]


def test_nothing_annotated_is_background():
    assert kinds_of(annotations([], [OBJECT]), results([(CAT, 0.5, 0, 0, 10, 10)], [])) == ["background"]


def test_the_most_confident_detection_nearly_finds_an_object():
    data = annotations([OBJECT, (CAT, 60, 60, 10, 10)])
    matches = matched(data, results([(DOG, 0.6, 0, 0, 10, 8), (CAT, 0.8, 0, 0, 10, 4)]))
    kinds, everything = error_kinds(matches), np.ones(2, dtype=bool)
    assert nearly_found(matches, kinds, everything).tolist() == [0, -1]
    assert missed_objects(matches, kinds, everything).tolist() == [1]
    assert missed_objects(matches, kinds, np.zeros(2, dtype=bool)).tolist() == [0, 1]


def costs(data, found) -> dict[str, float]:
    analysis = analyzed(data, found)
    return {each.kind: round(each.cost, 6) for each in analysis.errors}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        # One of two cats is found first: AP50 is 51/101, precision 1 up to a recall of 1/2.
        ([(CAT, 0.5, 50, 0, 10, 4)], {"place": 50 / 101}),
        ([(DOG, 0.5, 50, 0, 10, 10)], {"class": 50 / 101}),
        ([(DOG, 0.5, 50, 0, 10, 4)], {"missed": 50 / 101}),
        ([], {"missed": 50 / 101}),
        # The wrong one comes first, so precision is 1/2 up to a recall of 1/2.
        ([(CAT, 0.95, 80, 80, 10, 10)], {"background": 51 / 202, "missed": 50 / 202}),
    ],
)
def test_costs(more, expected):
    data = annotations([OBJECT, (CAT, 50, 0, 10, 10)])
    found = results([(CAT, 0.9, 0, 0, 10, 10), *more])
    assert costs(data, found) == {kind: round(expected.get(kind, 0), 6) for kind in KINDS}


def test_a_duplicate_costs_what_its_removal_gains():
    data = annotations([OBJECT, (CAT, 50, 0, 10, 10)])
    found = results([(CAT, 0.9, 0, 0, 10, 10), (CAT, 0.8, 0, 0, 10, 9), (CAT, 0.7, 50, 0, 10, 10)])
    assert costs(data, found)["duplicate"] == pytest.approx(1 - (51 + 50 * 2 / 3) / 101, abs=1e-6)


def random_case(seed: int, crowded: bool = False):
    rng = np.random.default_rng(seed)
    images, found = [], []
    for _ in range(30):
        objects = [
            (int(rng.choice([CAT, DOG])), 25 * (k % 4), 25 * (k // 4), *rng.uniform(10, 22, 2))
            for k in range(int(rng.integers(0, 9)))
        ]
        detections = []
        for id_, *box in objects:
            for _ in range(int(rng.integers(0, 3 if crowded else 2))):
                other = DOG if id_ == CAT else CAT
                moved = np.array(box) + rng.normal(0, 2.5, 4)
                detections.append((other if rng.random() < 0.2 else id_, float(rng.random()), *moved))
        images.append(objects)
        found.append(detections)
    return annotations(*images), results(*found)


@pytest.mark.parametrize("seed", range(3))
def test_confusion_is_that_of_supervision(seed):
    supervision = pytest.importorskip("supervision")
    data, found = random_case(seed)
    analysis = analyzed(data, found)
    thresholds = analysis.thresholds.of_rows()
    label = {CAT: 0, DOG: 1}
    targets, predictions = [], []
    for i, id_ in enumerate(data.image_ids):
        rows = data.objects(i)
        boxes = data.boxes[rows]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        targets.append(np.concatenate([corners, data.labels[rows][:, None]], axis=1).astype(np.float32))
        kept = [
            each
            for each in found
            if each["image_id"] == id_ and each["score"] >= thresholds[label[each["category_id"]]]
        ]
        predictions.append(
            np.array(
                [
                    [x, y, x + w, y + h, label[each["category_id"]], each["score"]]
                    for each in kept
                    for x, y, w, h in (each["bbox"],)
                ],
                dtype=np.float32,
            ).reshape(-1, 6)
        )
    expected = supervision.ConfusionMatrix.from_tensors(predictions, targets, ["cat", "dog"], 0.0, 0.5).matrix
    assert analysis.confusion.tolist() == expected.astype(int).tolist()
    assert (analysis.confusion > 0).sum() >= 7


@pytest.mark.parametrize("seed", range(3))
def test_counts_agree_with_each_other(seed):
    data, found = random_case(seed, crowded=True)
    analysis = analyzed(data, found)
    counts = analysis.confusion
    assert counts[:-1].sum(1).tolist() == analysis.matches.objects.tolist()
    assert counts.diagonal()[:-1].tolist() == [each.correct for each in analysis.at_best]
    wrong = sum(each.count for each in analysis.errors if each.kind != "missed")
    assert wrong == sum(each.wrong for each in analysis.at_best) == counts[:, :-1].sum() - counts.diagonal().sum()
    assert all(each.cost >= 0 for each in analysis.errors)
    assert [each.best for each in analysis.classes] == analysis.at_best


def test_doubtful_labels():
    data = annotations(
        [(CAT, 0, 0, 10, 10), (CAT, 20, 0, 10, 10)],
        [(DOG, 0, 0, 10, 10), (DOG, 50, 50, 20, 20)],
        [(DOG, 0, 0, 10, 10)],
    )
    found = results(
        [(CAT, 0.9, 0, 0, 10, 10), (CAT, 0.8, 20, 0, 10, 10), (CAT, 0.95, 60, 60, 10, 10), (CAT, 0.83, 80, 60, 10, 10)],
        [(CAT, 0.9, 0, 0, 10, 9), (DOG, 0.2, 50, 50, 10, 10)],
        [(DOG, 0.3, 0, 0, 10, 10)],
    )
    found = [
        (each.kind, each.index, each.box, each.annotated, each.detected, each.score)
        for each in analyzed(data, found).doubtful
    ]
    assert found == [
        (
            "not annotated",
            0,
            (60, 60, 10, 10),
            None,
            "cat",
            0.95,
        ),  # that with 0.83 is less confident than half of the right ones
        ("other category", 1, (0, 0, 10, 10), "dog", "cat", 0.9),
        ("found by nothing", 1, (50, 50, 20, 20), "dog", "dog", 0.2),
    ]


def test_worst_images_and_their_faults():
    data = annotations([OBJECT], [OBJECT, (DOG, 50, 50, 10, 10)], [OBJECT, (DOG, 50, 50, 10, 10)])
    found = results(
        [(CAT, 0.9, 0, 0, 10, 10)],
        [(CAT, 0.9, 0, 0, 10, 10), (DOG, 0.8, 50, 50, 10, 10)],
        [(CAT, 0.9, 0, 0, 10, 4), (CAT, 0.95, 80, 0, 10, 10)],
    )
    worst = analyzed(data, found).worst
    assert [(each.index, each.objects, each.correct) for each in worst] == [(2, 2, 0)]
    assert [(each.kind, each.detected, each.annotated, each.box) for each in worst[0].faults] == [
        ("background", "cat", None, (80, 0, 10, 10)),
        ("place", "cat", "cat", (0, 0, 10, 4)),
        ("missed", None, "dog", (50, 50, 10, 10)),
    ]


# Numbers of tidecv 1.0.1 (mode BOX) for the same detections: cost of AP, and number of errors.
TIDE = {
    0: {
        "class": (0.10061, 21),
        "place": (0.15926, 33),
        "both": (0.02721, 11),
        "duplicate": (0.00642, 10),
        "background": (0.0, 0),
        "missed": (0.15211, 55),
    },
    1: {
        "class": (0.07261, 13),
        "place": (0.20377, 28),
        "both": (0.01695, 10),
        "duplicate": (0.01097, 11),
        "background": (0.00083, 1),
        "missed": (0.1329, 42),
    },
    4: {
        "class": (0.06677, 17),
        "place": (0.25063, 43),
        "both": (0.01498, 12),
        "duplicate": (0.00661, 9),
        "background": (0.00181, 1),
        "missed": (0.11349, 47),
    },
}


@pytest.mark.parametrize("seed", TIDE)
def test_errors_and_costs_are_those_of_tide(seed):
    analysis = analyzed(*random_case(seed, crowded=True))
    assert {each.kind: (round(each.cost, 5), each.of_all) for each in analysis.errors} == TIDE[seed]
