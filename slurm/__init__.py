"""Trains the runs of a study on a SLURM cluster: submit, watch, cancel, and a small cluster on this machine for trials."""
