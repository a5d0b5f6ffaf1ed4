"""Predict detections from images, with one pipeline and exchangeable runtimes."""
