"""Training: the loop, its optimizer, and the run folder that it fills."""
