"""All laws. To add one, write a file in this folder that defines `LAWS` and add its name here."""

from importlib import import_module

from analysis.laws.law import Law

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
# Partial fixes constants at published values. For a fair comparison the others are also judged with theirs, and partial without.
CROSS_VALIDATED = (*OF_REPETITION, *(variant for law in OF_REPETITION for variant in law.variants))
