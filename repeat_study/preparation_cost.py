"""Estimate what the preparation of a study's token stores costs: text to read, tokens, core hours and disk space."""

import math
from dataclasses import dataclass
from pathlib import Path

from data_prep.chunks.plan import disk_bytes
from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.sources import Source
from data_prep.token_store import MANIFEST
from repeat_study.config.study import Study

# Bytes of English text per token of a byte-level BPE, measured on novels with tokenizers of these sizes.
BYTES_PER_TOKEN = {1024: 2.71, 50_257: 4.34}


@dataclass(frozen=True)
class PreparationCost:
    """The estimated cost of building one store."""

    store: str
    tokens: int
    text_bytes: float
    core_seconds: float
    disk_bytes: float  # during the build; half of it remains
    is_exact: bool  # whether the size of the text on this machine is known


def preparation_costs(study: Study, data_dir: Path, bytes_per_second: float) -> list[PreparationCost]:
    """The cost of every missing store of a study and its ancestors that is built from text.

    bytes_per_second: bytes of text that one core encodes per second.
    """
    specs = {spec.store_name: spec for declared in study.lineage for spec in declared.stores}
    missing = [spec for name, spec in specs.items() if not (data_dir / name / MANIFEST).is_file()]
    return [_cost(spec, bytes_per_second) for spec in missing if isinstance(spec.source, Source)]


def _cost(spec: DataSpec, bytes_per_second: float) -> PreparationCost:
    assert isinstance(spec.source, Source)
    per_token = bytes_per_token(spec)
    size = spec.source.text_bytes()
    known = size is not None and math.isfinite(size)
    text_bytes = min(size if size is not None else math.inf, per_token * spec.max_tokens)
    return PreparationCost(
        spec.store_name,
        int(text_bytes / per_token),
        text_bytes,
        text_bytes / bytes_per_second,
        disk_bytes(spec, text_bytes),
        known,
    )


def bytes_per_token(spec: DataSpec) -> float:
    """Estimated bytes of text per token, interpolated in the logarithm of the size of the vocabulary."""
    if isinstance(spec.source, Source) and (words := spec.source.fixed_vocabulary()) is not None:
        return sum(map(len, words)) / len(words) + 1
    try:
        vocabulary = spec.expected_vocabulary()
    except InputError:  # the tokenizer is missing on this machine
        vocabulary = 50_257
    (small, low), (large, high) = BYTES_PER_TOKEN.items()
    share = math.log(vocabulary / small) / math.log(large / small)
    return max(1.0, low + share * (high - low))
