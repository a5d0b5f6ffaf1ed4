"""From images to detections: one pipeline over exchangeable runtimes."""
