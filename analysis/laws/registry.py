"""All laws by name, and the forms of them that are judged on runs left out."""

from analysis.laws import chudnovsky, clean, hernandez, lovelace, muennighoff, partial
from analysis.laws.law import held
from analysis.published import H22_LEFT_EDGE, H22_RIGHT_EDGE

LAWS = (clean.IN_SIZE, clean.IN_COMPUTE, partial.LAW, hernandez.LAW, chudnovsky.LAW, muennighoff.LAW, lovelace.LAW)
NAMES = tuple(law.name for law in LAWS)
OF_REPETITION = tuple(law for law in LAWS if not law.only_clean)
# Ours holds constants from print: so the others with theirs, and ours without.
JUDGED = (
    *OF_REPETITION,
    partial.FREE,
    held(
        hernandez.LAW,
        "hernandez_printed",
        "with the printed exponents of its edges",
        a_left=H22_LEFT_EDGE.exponent,
        a_right=H22_RIGHT_EDGE.exponent,
    ),
    held(
        muennighoff.LAW,
        "muennighoff_printed",
        "with its printed half-lives",
        R_D=muennighoff.PUBLISHED["R_D"],
        R_N=muennighoff.PUBLISHED["R_N"],
    ),
)
