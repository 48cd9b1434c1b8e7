"""Checkpoints: the files a run saves and reads back, the lanes of a bundle's checkpoint, and starting from a finished parent."""
