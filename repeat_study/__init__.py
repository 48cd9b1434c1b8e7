"""Train language models on partly repeated data: studies, models, training, probes and run directories.

Usage from Python:

    from repeat_study import load_study, mixture_dataset, prepare_study

    prepared = prepare_study(load_study("laptop"), data_dir=Path("data"))
    run = prepared.runs(runs_dir=Path("runs"))[1]
    for batch in DataLoader(mixture_dataset(run, prepared.store), batch_size=None):
        inputs, targets = batch[0, :, :-1], batch[0, :, 1:]  # int64 tokens, [sequences, context]
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repeat_study.config.study import load_study
    from repeat_study.preparation import prepare_study
    from repeat_study.training.dataset import mixture_dataset

# Lightning and the report import matplotlib. If the home folder is not writable, matplotlib then logs that it uses a temporary
# folder and rebuilds its font cache, which affects no result.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

__version__ = "0.1.0"
__all__ = ["load_study", "mixture_dataset", "prepare_study"]

_MODULES = {
    "load_study": "repeat_study.config.study",
    "mixture_dataset": "repeat_study.training.dataset",
    "prepare_study": "repeat_study.preparation",
}


def __getattr__(name: str) -> Any:
    """Import exported names on first use, because `mixture_dataset` needs torch, which takes seconds to import."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
