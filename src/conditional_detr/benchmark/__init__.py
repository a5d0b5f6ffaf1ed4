"""Benchmarks of size, speed and memory of networks and training steps, also against transformers."""
