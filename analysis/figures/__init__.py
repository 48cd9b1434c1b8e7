"""The figures of the report, one file each. Its function `plot(runs)` returns a Plot, or a Missing with the reason."""
