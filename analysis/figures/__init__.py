"""One file per figure, each with its `NAME` and `plot(runs)`, which returns a Plot or explains what is missing."""
