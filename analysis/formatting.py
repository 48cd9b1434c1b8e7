"""How numbers are written, in figures, tables and sentences: counts, sizes, losses, intervals."""


def size_name(parameters: float) -> str:
    """A parameter count for a legend: 24.6k, 1.57M, 805M."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{letter}"
    return f"{parameters:.0f}"
