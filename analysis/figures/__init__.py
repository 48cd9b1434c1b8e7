"""The figures of the report, one file each. `plot(runs)` in that file returns a Plot, or a Missing with the reason."""
