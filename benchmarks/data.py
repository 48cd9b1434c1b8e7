"""Compare data preparation with lower bounds: the encoder alone, a plain numpy gather, and the memory of an index.

Prints tables and then one JSON line of ratios. The two measurements in a ratio alternate within one run of this script. For a
comparison with another library, see data_peers.py.
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
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from data_prep.chunks.duplicates import first_copies
from data_prep.data_spec import DataSpec
from data_prep.document_batch import DETAILS, DIGEST_BYTES
from data_prep.draw import Draw, Unit
from data_prep.encoding import BATCH_CHARACTERS
from data_prep.mixture import RepeatMixture, pool_size
from data_prep.prepare import prepare
from data_prep.sources import Document, InstalledPython, SourceReport, documents
from data_prep.token_store import SPLITS, TokenStore
from repeat_study.training.dataset import MixtureDataset

ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def builder(folder: Path, megabytes: int, vocabulary: int) -> tuple[dict[str, float], TokenStore]:
    """Compare building a token store from a JSONL file with encode_batch_fast on the same texts.

    The encoder alone receives the same batches of texts from memory and uses a thread per core. A build uses a process per core: it
    reads and parses the file, hashes the texts, removes duplicates, assigns splits, encodes and writes the texts, and computes checksums.
    Returns median ratios and the store: encoder time to build time, the same in CPU time, and the share of the build's CPU time that
    does not get shorter with more processes.
    """
    fields = {"source": "installed-python", "max_tokens": 1_000_000, "vocabulary": vocabulary}
    first = prepare(DataSpec.model_validate(fields), folder)
    tokenizer = first.tokenizer()
    batches: list[list[str]] = [[]]
    characters = total = 0
    path = folder / "text.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for copy, document in texts(megabytes):
            text = f"{copy} {document.text}"  # copies of a document differ in their first word
            batches[-1].append(text)
            file.write(json.dumps({"text": text}) + "\n")
            characters += len(text)
            total += len(text)
            if characters >= BATCH_CHARACTERS:
                batches.append([])
                characters = 0

    def bare() -> int:
        return sum(len(encoding) for batch in batches for encoding in tokenizer.encode_batch_fast(batch))

    tokens = bare() + sum(map(len, batches))
    fields = {"source": {"kind": "files", "paths": [str(path)]}, "tokenizer": str(first.folder / "tokenizer.json")}
    spec = DataSpec.model_validate(fields | {"max_tokens": tokens})
    cores = len(os.sched_getaffinity(0))
    print(f"builder: {total / 1e6:.0f} M characters, {tokens / 1e6:.1f} M tokens, {cores} cores")
    measured: dict[str, list[float]] = {"builder": [], "builder_cpu": [], "serial_share": []}
    store = first
    for number in range(ROUNDS):
        start, start_cpu = time.perf_counter(), cpu_seconds()
        bare()
        alone, alone_cpu = time.perf_counter() - start, cpu_seconds() - start_cpu
        stages = {"planning": time.process_time()}
        start, start_cpu = time.perf_counter(), cpu_seconds()
        store = prepare(spec, folder / str(number), partial(note_stage, stages), processes=cores)
        build, build_cpu = time.perf_counter() - start, cpu_seconds() - start_cpu
        serial = time.process_time() - stages["writing the store"] + stages["tokenizing"] - stages["planning"]
        serial += settling_seconds(store)
        measured["builder"].append(alone / build)
        measured["builder_cpu"].append(alone_cpu / build_cpu)
        measured["serial_share"].append(serial / build_cpu)
        rates = f"encoder alone {tokens / alone / 1e6:.2f} M tokens/s, complete build {tokens / build / 1e6:.2f}"
        cpu = f"CPU time {alone_cpu:.1f} s, {build_cpu:.1f} s"
        print(f"  complete build: {total / build_cpu / 1e6:.2f} M characters/s (about MB/s) per core")
        print(f"  {rates}: ratio {alone / build:.2f}; {cpu}: ratio {alone_cpu / build_cpu:.2f}; serial {serial:.2f} s")
    ratios = {name: statistics.median(values) for name, values in measured.items()}
    per_core = tokens / build_cpu
    for many in (16, 64):  # Amdahl's law
        speed = per_core * many / (1 + ratios["serial_share"] * (many - 1))
        print(
            f"  expected on {many} cores: {speed / 1e6:.1f} M tokens/s ({speed / per_core / many:.0%} of {many} single cores)"
        )
    return ratios, store


def texts(megabytes: int) -> Iterator[tuple[int, Document]]:
    """Yield installed Python files with the number of times they were yielded before, `megabytes` million characters in total."""
    total = 0
    for copy in count():
        for document in documents(InstalledPython(), SourceReport()):
            yield copy, document
            total += len(document.text)
            if total >= megabytes * 1e6:
                return


def note_stage(stages: dict[str, float], stage: str, share: float) -> None:
    """Progress callback of a build: note this process's CPU time when each stage begins."""
    stages.setdefault(stage.partition(DETAILS)[0], time.process_time())


def cpu_seconds() -> float:
    """CPU time of this process and its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def settling_seconds(store: TokenStore) -> float:
    """CPU time to find the duplicates in a store's documents, which one process does for the entire build."""
    lengths = [np.diff(store.offsets(split)) for split in SPLITS]
    digests = np.random.default_rng(0).integers(0, 256, (sum(map(len, lengths)), DIGEST_BYTES), np.uint8)
    start = time.process_time()
    first_copies([len(digests)], lambda number: digests)
    return time.process_time() - start


def assembly(store: TokenStore) -> dict[str, float]:
    """Compare assembling a mixture's training batches with indexing the same memory map by a precomputed index."""
    print(
        "batch assembly, sequences/s: the mixture, then a plain numpy gather; with 128 sequences per step (as in H22) and 16"
    )
    medians = {}
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
        bare_seconds, our_seconds = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratios = [theirs / own for theirs, own in pairs]
        medians[f"assembly_{per_step}x{context}"] = ratio = statistics.median(ratios)
        print(
            f"  {per_step:3} x {context:4}:"
            f" {steps * per_step / our_seconds:12,.0f}, {steps * per_step / bare_seconds:12,.0f}, ratio {ratio:.2f}"
        )
    return medians


MIXTURE = """
import resource, time
from data_prep.mixture import RepeatMixture, pool_size
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
positions = {tokens} // {context}
mixture = RepeatMixture(positions, max(1, {pool} // {context}), positions * 9 // 10 // max(1, {pool} // {context}), seed=0)
mixture.at([0, positions // 2, positions - 1])
mixture.occurrences(mixture.pool - 1)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def plans() -> dict[str, float]:
    """In a new process, measure the time and memory needed to create a mixture, look up three positions, and find all positions
    of one sequence."""
    print("mixture: context 128, f = 90%; an index would take 8 bytes per sequence of the run")
    elapsed = {}
    for tokens, pool in ((10**6, 10**5), (10**8, 10**6), (10**10, 10**8), (10**11, 10**5), (10**11, 10**10)):
        code = MIXTURE.format(tokens=tokens, context=128, pool=pool)
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        elapsed[tokens] = float(out[0])
        index = tokens // 128 * 8 / 1e6
        print(
            f"  {tokens:>15,} tokens, pool {pool:>14,}: {1e3 * elapsed[tokens]:7.2f} ms,"
            f" {int(out[1]) / 1e3:6.2f} MB added; index {index:10.2f} MB"
        )
    return {"plan_seconds_1e11_over_1e6": elapsed[10**11] / elapsed[10**6]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--megabytes", type=int, default=100, help="size of the text to encode, in millions of characters"
    )
    parser.add_argument("--vocabulary", type=int, default=1024, help="size of the tokenizer's vocabulary")
    parser.add_argument("--builder-only", action="store_true", help="measure only the building of stores")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratios, store = builder(Path(folder), arguments.megabytes, arguments.vocabulary)
        if not arguments.builder_only:
            ratios |= assembly(store) | plans()
    for name, who in (("this process", resource.RUSAGE_SELF), ("a worker process", resource.RUSAGE_CHILDREN)):
        print(f"peak memory of {name}: {resource.getrusage(who).ru_maxrss / 1e3:.0f} MB")
    print(json.dumps({"ratios": {name: round(value, 3) for name, value in ratios.items()}}))


if __name__ == "__main__":
    main()
