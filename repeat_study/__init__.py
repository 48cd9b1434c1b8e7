"""One process, one run: specs, models, training, probes and the run directory."""
