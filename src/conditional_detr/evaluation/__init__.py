"""Evaluation of detections on annotated images."""
