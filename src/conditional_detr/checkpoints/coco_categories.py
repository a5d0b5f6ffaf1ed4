"""The categories of COCO, which published files do not contain."""

from conditional_detr.record import Categories

UNUSED = "N/A"  # name of a logit without a category, as in Hugging Face checkpoints


def unnamed(rows: int) -> Categories:
    """Return categories with ids from 0 and numbered names, for files without names."""
    return Categories(tuple(range(rows)), tuple(f"class {i}" for i in range(rows)))


_NAMES = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
]
_WITHOUT = {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # ids below 91 that COCO does not use

COCO_80 = Categories(tuple(i for i in range(91) if i not in _WITHOUT), tuple(_NAMES))
"""One logit per category, as in MMDetection."""
COCO_91 = Categories(tuple(range(91)), tuple(UNUSED if i in _WITHOUT else COCO_80.name_of(i) for i in range(91)))
"""One logit per id, as in the official codes."""
