"""Probes: measurements made on a model at every evaluation, each with a null for comparison."""
