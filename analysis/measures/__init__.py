"""Compute measured quantities from tables of runs: degradation, effective size, peaks and induction heads."""
