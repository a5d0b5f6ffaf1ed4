"""What the paper shows: attention maps of a model, and the convergence of runs."""
