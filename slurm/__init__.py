"""Places runs on machines: a pool of processes here. Knows run directories and `train`, nothing of models."""
