"""TensorBoard over a study's folder: one line per run against trained tokens, a table of runs, and side-by-side charts."""
