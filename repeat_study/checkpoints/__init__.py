"""Checkpoints: what a run saves and reads back, alone or as one lane of a bundle."""
