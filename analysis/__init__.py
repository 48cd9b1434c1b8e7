"""From run directories to tables, figures and a report. It uses pandas, scipy and matplotlib, and no torch.

For use from Python:

    from pathlib import Path
    from analysis import load_runs

    runs = load_runs(Path("runs/laptop"))
    runs.done.groupby(["model", "repeats"]).final_test_loss.mean()
    runs.evaluations.pivot(index="tokens", columns="name", values="test_loss").plot()
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.runs import load_runs

# Fits have few parameters, so BLAS threads only wait for each other: 40 s instead of 0.1 s if other processes keep the cores
# busy. scipy's BLAS reads this when it is loaded, which happens later.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["load_runs"]


def __getattr__(name: str) -> Any:
    """Import on first use: published laws are evaluated without pandas."""
    if name == "load_runs":
        from analysis.runs import load_runs

        return load_runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
