"""Train a study's grid on this machine: schedule bundles, run worker processes and show progress."""
