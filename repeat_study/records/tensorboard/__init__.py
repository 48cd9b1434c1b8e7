"""TensorBoard data for a study: one curve per run over trained tokens, a table of runs, and side-by-side charts."""
