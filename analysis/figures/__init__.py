"""The report's figures, one module each. A module's function `plot(runs)` returns a Plot, or a Missing with the reason."""
