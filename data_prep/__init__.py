"""Turn text into tokens, and tokens into a mixture of unique and repeated sequences.

This package does not depend on any model.

    import data_prep

    store = data_prep.build_store({"source": "installed-python", "max_tokens": 1_000_000}, "data")
    mixture = data_prep.RepeatMixture(positions=1000, pool=10, repeats=50, seed=0)  # half of the run is repeated data
    draw = data_prep.Draw(store, context=128, positions=1000, unit=data_prep.Unit.SEQUENCE, seed=0)
    draw.require(mixture.pool)  # raises InputError if the store is too small
    tokens = draw.tokens(mixture.at(range(32)))  # the first 32 sequences of the run, int64, shape [32, 129]

Names are imported on first use, so `import data_prep` itself is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_prep.api import build_store as build_store
    from data_prep.api import open_store as open_store
    from data_prep.data_spec import DataSpec as DataSpec
    from data_prep.draw import Draw as Draw
    from data_prep.draw import Unit as Unit
    from data_prep.errors import InputError as InputError
    from data_prep.mixture import RepeatMixture as RepeatMixture
    from data_prep.mixture import Spacing as Spacing
    from data_prep.mixture import pool_size as pool_size
    from data_prep.token_store import TokenStore as TokenStore

_MODULES = {
    "build_store": "api",
    "open_store": "api",
    "DataSpec": "data_spec",
    "TokenStore": "token_store",
    "RepeatMixture": "mixture",
    "Spacing": "mixture",
    "pool_size": "mixture",
    "Draw": "draw",
    "Unit": "draw",
    "InputError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
