"""Submit runs to a SLURM cluster, track and cancel them, and start a small test cluster on this machine."""
