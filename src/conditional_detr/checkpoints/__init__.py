"""Reading and writing checkpoints: one module per format, one table of names."""
