"""How fast and how large: of a network, its training step, and against transformers."""
