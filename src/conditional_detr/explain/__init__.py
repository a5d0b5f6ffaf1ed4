"""Analyses of the paper: attention maps of a model, and convergence of runs."""
