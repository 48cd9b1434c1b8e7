"""Turn run directories into tables, figures and a report. Needs pandas, scipy and matplotlib, but not torch.

Use from Python:

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

# The fits have few parameters, so BLAS threads only slow them down: with other processes on the cores, a fit took 40 s instead of
# 0.1 s. OpenBLAS reads this variable when scipy is imported, which happens later.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["load_runs"]


def __getattr__(name: str) -> Any:
    """Import lazily, because evaluating published laws does not need pandas."""
    if name == "load_runs":
        from analysis.runs import load_runs

        return load_runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
