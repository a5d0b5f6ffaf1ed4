"""Models on the Hugging Face hub: what a run tells (facts.py), the model card (card.py), and the upload (uploading.py)."""

from conditional_detr.hub.uploading import Pushed, push

__all__ = ["Pushed", "push"]
