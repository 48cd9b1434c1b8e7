"""The data builder against its parts: the encoder alone, a bare gather, and an index; peers are in data_peers.py.

Prints tables and, last, one JSON line of ratios. Every ratio is taken in this one run, the two sides in turn.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep.data_spec import DataSpec
from data_prep.draw import Draw, Unit
from data_prep.encoding import BATCH_CHARACTERS
from data_prep.mixture import RepeatMixture, pool_size
from data_prep.prepare import prepare
from data_prep.sources import InstalledPython, SourceReport, documents
from data_prep.token_store import TokenStore
from repeat_study.training.dataset import MixtureDataset

ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def builder(folder: Path, megabytes: int) -> tuple[float, TokenStore]:
    """Whole builds from a JSONL file, with a given tokenizer, against encode_batch_fast over the same texts.

    The encoder alone finds its texts in memory, in the same batches; the build reads and parses them, hashes them, drops
    duplicates, splits, encodes, writes and computes checksums.
    """
    first = prepare(DataSpec.model_validate({"source": "installed-python", "max_tokens": 1_000_000}), folder)
    tokenizer = first.tokenizer()
    batches: list[list[str]] = [[]]
    characters = total = 0
    path = folder / "text.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for document in documents(InstalledPython(), SourceReport()):
            batches[-1].append(document.text)
            file.write(json.dumps({"text": document.text}) + "\n")
            characters += len(document.text)
            total += len(document.text)
            if total >= megabytes * 1e6:
                break
            if characters >= BATCH_CHARACTERS:
                batches.append([])
                characters = 0

    def bare() -> int:
        return sum(len(encoding) for batch in batches for encoding in tokenizer.encode_batch_fast(batch))

    tokens = bare() + sum(map(len, batches))
    fields = {"source": {"kind": "files", "paths": [str(path)]}, "tokenizer": str(first.folder / "tokenizer.json")}
    spec = DataSpec.model_validate(fields | {"max_tokens": tokens})
    print(f"builder: {total / 1e6:.0f} M characters, {tokens / 1e6:.1f} M tokens, {os.cpu_count()} cores")
    ratios, store = [], first
    for number in range(ROUNDS):
        alone = seconds(bare)
        begun = time.perf_counter()
        store = prepare(spec, folder / str(number))
        whole = time.perf_counter() - begun
        ratios.append(alone / whole)
        rates = f"encoder alone {tokens / alone / 1e6:.2f} M tokens/s, whole build {tokens / whole / 1e6:.2f}"
        print(f"  {rates}: ratio {ratios[-1]:.2f}")
    return statistics.median(ratios), store


def assembly(store: TokenStore) -> dict[str, float]:
    """Batches of a mixture, as training gets them, against rows[index] of the same memory map with ready-made indices."""
    print(
        "batch assembly: sequences/s of the mixture and of a bare numpy gather; 128 sequences per step as in H22, and 16"
    )
    found = {}
    for per_step, context in ((128, 128), (128, 512), (128, 2048), (16, 128), (16, 2048)):
        in_store = store.sequences_in("train", context)
        positions = in_store * 2 // 3 // per_step * per_step
        mixture = RepeatMixture(positions, pool_size(positions, 0.5, 10), 10, seed=0)
        batches = MixtureDataset([(mixture, Draw(store, context, positions, Unit.SEQUENCE, 0))], per_step)
        rows = store.train[: in_store * (context + 1)].reshape(-1, context + 1)
        index = np.random.default_rng(0).integers(0, in_store, (len(batches), per_step))
        steps = len(batches)

        def bare() -> None:
            for step in range(steps):  # noqa: B023
                rows[index[step]].astype(np.int64)  # noqa: B023

        def ours() -> None:
            batches._block = None  # noqa: B023
            for step in range(steps):  # noqa: B023
                batches[step]  # noqa: B023

        pairs = [(seconds(bare), seconds(ours)) for _ in range(4 * ROUNDS)]
        alone, took = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [one / other for one, other in pairs]
        found[f"assembly_{per_step}x{context}"] = ratio = statistics.median(ratios)
        print(
            f"  {per_step:3} x {context:4}: {steps * per_step / took:12,.0f} and {steps * per_step / alone:12,.0f}, ratio {ratio:.2f}"
        )
    return found


PLAN = """
import resource, time
from data_prep.mixture import RepeatMixture, pool_size
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.perf_counter()
positions = {tokens} // {context}
mixture = RepeatMixture(positions, max(1, {pool} // {context}), positions * 9 // 10 // max(1, {pool} // {context}), seed=0)
found = mixture.at([0, positions // 2, positions - 1])
seen = mixture.occurrences(mixture.pool - 1)
print(time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def plans() -> dict[str, float]:
    """Time and memory of a plan: the mixture, three look-ups and all occurrences of one sequence, in a fresh process."""
    print("plan: context 128, f = 90%; an index is 8 bytes per sequence of the run")
    took = {}
    for tokens, pool in ((10**6, 10**5), (10**8, 10**6), (10**10, 10**8), (10**11, 10**5), (10**11, 10**10)):
        code = PLAN.format(tokens=tokens, context=128, pool=pool)
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        took[tokens] = float(out[0])
        index = tokens // 128 * 8 / 1e6
        print(
            f"  {tokens:>15,} tokens, pool {pool:>14,}: {1e3 * took[tokens]:7.2f} ms,"
            f" {int(out[1]) / 1e3:6.2f} MB more; index {index:10.2f} MB"
        )
    return {"plan_seconds_1e11_over_1e6": took[10**11] / took[10**6]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=40, help="of text for the builder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratio, store = builder(Path(folder), arguments.megabytes)
        ratios = {"builder": ratio, **assembly(store), **plans()}
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    print(json.dumps({"ratios": {name: round(value, 3) for name, value in ratios.items()}}))


if __name__ == "__main__":
    main()
