"""What is measured on a model: one file per probe, with the probe's null beside it."""
