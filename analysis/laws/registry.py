"""List all laws. To add a law, write a file in this folder that defines `LAWS`, and add the name of the file here."""

from importlib import import_module

from analysis.laws import partial, powers
from analysis.laws.law import Law, without_priors

FILES = (
    "clean",
    "partial",
    "hernandez",
    "chudnovsky",
    "muennighoff",
    "lovelace",
)
LAWS: tuple[Law, ...] = tuple(law for file in FILES for law in import_module(f"{__package__}.{file}").LAWS)
NAMES = tuple(law.name for law in LAWS)
OF_REPETITION = tuple(law for law in LAWS if not law.clean_only)
# For comparison, cross-validation also includes another form of our law, and our law without priors.
VARIANTS = (powers.LAW, without_priors(partial.LAW, "partial_free", "partial repetition (no priors)"))
CROSS_VALIDATED = (*OF_REPETITION, *VARIANTS)
_TITLES = {law.name: law.title for law in (*LAWS, *CROSS_VALIDATED)}


def title_of(name: str) -> str:
    """The title of the law with this name. Other names, such as baselines, are returned unchanged."""
    return _TITLES.get(name, name)
