"""From tables of runs to measured quantities: degradation, effective size, peaks, induction heads."""
