"""All laws by name."""

from analysis.laws import chudnovsky, clean, hernandez, lovelace, muennighoff, partial

LAWS = (clean.IN_SIZE, clean.IN_COMPUTE, partial.LAW, hernandez.LAW, chudnovsky.LAW, muennighoff.LAW, lovelace.LAW)
OF_REPETITION = tuple(law for law in LAWS if not law.only_clean)
NAMES = tuple(law.name for law in LAWS)
