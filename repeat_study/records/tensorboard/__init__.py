"""TensorBoard for a study's folder: curves over trained tokens, one per run, a table of runs, and side-by-side charts."""
