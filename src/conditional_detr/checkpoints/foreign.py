"""Tell what weights are that belong to no Conditional DETR or DETR, from the names of their parameters."""

import re
from collections.abc import Collection

SEGMENTATION = r"(?:^|\.)bbox_attention\."
_GIVE = "give a Conditional DETR or DETR"
# Patterns that must all be found in names -> what has such names, what to do. The first that fits counts.
_MODELS: dict[tuple[str, ...], tuple[str, str]] = {
    (SEGMENTATION,): ("a segmentation model of DETR, which is not supported", "give a detector"),
    (r"(?:^|\.)lora_[AB]\.",): ("an adapter (LoRA)", "merge it into its model and save that"),
    (r"(?:^|\.)model\.\d+\.(?:conv|cv\d|m|dfl)\.",): ("a YOLO model", _GIVE),
    (r"(?:^|\.)(?:lqe_layers|pre_bbox_head)\.",): ("a D-FINE or DEIM model", _GIVE),
    (r"(?:^|\.)dec_score_head\.",): ("an RT-DETR model or a successor", _GIVE),
    (r"(?:^|\.)query_feat\.", r"(?:^|\.)refpoint_embed\."): ("an RF-DETR or LW-DETR model", _GIVE),
    (r"(?:^|\.)sampling_offsets\.",): ("a model with deformable attention, such as Deformable DETR or DINO", _GIVE),
    (r"(?:^|\.)(?:refpoint_embed|ref_anchor_head|label_enc)\.",): ("a model such as DAB-DETR or DN-DETR", _GIVE),
    (r"(?:^|\.)bbox_head\.transformer\.",): ("a DETR of MMDetection 2", "give a checkpoint of MMDetection 3"),
    (r"(?:^|\.)(?:roi_heads?|rpn|rpn_head|proposal_generator)\.",): ("a model such as Faster R-CNN", _GIVE),
    (r"(?:^|\.)query_position_embeddings\.",): (
        "a model of transformers without heads (ConditionalDetrModel or DetrModel)",
        "give one for object detection",
    ),
    (r"(?:^|\.)class_head\.", r"(?:^|\.)decoder\.query_position\."): (
        "the state_dict() of a model of this library, without its record",
        "save a checkpoint folder with Detector.save_pretrained instead",
    ),
}
_BACKBONE = re.compile(r"(?:module\.)?(?:conv1|bn1|layer\d|fc)\.")


def described(names: Collection[str]) -> str | None:
    """Return what weights with these names are and what to do, to go on after the name of their file; None if unknown."""
    for patterns, (what, remedy) in _MODELS.items():
        if all(any(re.search(pattern, name) for name in names) for pattern in patterns):
            return f"is {what}; {remedy}"
    if names and all(_BACKBONE.match(name) for name in names):
        return "is a backbone without a detector; give it as model.backbone_weights in training"
    return None
