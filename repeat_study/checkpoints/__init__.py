"""Save and load checkpoints, split and merge their lanes, and load the weights of finished parents."""
