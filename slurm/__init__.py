"""Places runs on machines: a pool of processes here, or the jobs of a SLURM cluster. Knows runs, nothing of models."""
