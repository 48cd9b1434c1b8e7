"""Compare RepeatMixture with mosaicml-streaming: time, memory, and how often each unique and repeated sequence occurs.

The Python environment that runs this script needs the peer library: pip install torch mosaicml-streaming. RepeatMixture needs only numpy.
Each case runs in a new process. Only the order of sequence ids is compared, and no samples are read. The peer's shards contain
one integer per sample and are written before the timing starts. Prints a table and then one JSON line of ratios.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH = 16
SHARD_BYTES = 12 * 2**14  # about 16,000 samples per shard, as many as 2,000-token sequences in a shard of 64 MB
LARGEST_COMMON = 10**6
COUNT_ALL = 10**7  # longer runs are checked only for a sample of pool slots
ROUNDS = 3  # how often to repeat the cases used for ratios; each repetition is a new process


class Case(NamedTuple):
    """One row of the table.

    method: "ours" for RepeatMixture, "repeat" for the peer's Stream(repeat=R), "proportion" for its Stream(proportion=f).
    """

    method: str
    positions: int
    fraction: float
    repeats: int
    nodes: int = 1
    ranks: int = 1  # per node

    @property
    def pool(self) -> int:
        return round(self.fraction * self.positions / self.repeats)

    @property
    def unique(self) -> int:
        return self.positions - self.pool * self.repeats


class Clock:
    """Measures the duration of each step in seconds, and the growth in peak resident memory since the start in bytes. Linux only."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current resident memory
        self._start = self._peak()
        self._last = time.perf_counter()

    @staticmethod
    def _peak() -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def step(self) -> float:
        now, last = time.perf_counter(), self._last
        self._last = time.perf_counter()
        return now - last

    def growth(self) -> int:
        return self._peak() - self._start


def late(case: Case) -> int:
    """First position of the training step that is nine tenths of the way through the run."""
    step = BATCH * case.nodes * case.ranks
    return case.positions * 9 // 10 // step * step


def counts(case: Case, ids: np.ndarray) -> dict[str, Any]:
    """Count how often each sequence occurs. Ids below `case.unique` are in the unique stream, and all others in the pool."""
    occurrences = np.bincount(ids, minlength=case.unique + case.pool)
    unique, pool = occurrences[: case.unique], occurrences[case.unique :]
    pool_ids = ids[ids >= case.unique]
    return {
        "seen": len(ids),
        "pool_exact": int((pool == case.repeats).sum()),
        "pool_least": int(pool.min()),
        "pool_most": int(pool.max()),
        "unique_once": int((unique == 1).sum()),
        "unique_least": int(unique.min()),
        "unique_most": int(unique.max()),
        "first_pass": len(set(pool_ids[: case.pool].tolist())) / case.pool,
    }


def measure_ours(case: Case) -> dict[str, Any]:
    from data_prep.mixture import RepeatMixture, Stream

    def ids(positions: np.ndarray) -> np.ndarray:
        sequences = mixture.at(positions)
        return sequences.place + case.unique * (sequences.stream == Stream.POOL)

    clock = Clock()
    mixture = RepeatMixture(case.positions, case.pool, case.repeats, seed=0)
    out: dict[str, Any] = {"setup": clock.step()}
    ids(np.arange(BATCH))
    out["first"] = clock.step()
    out["bytes"] = clock.growth()
    clock.step()
    ids(late(case) + np.arange(BATCH))
    out["late"] = clock.step()
    if case.positions > COUNT_ALL:
        slots = np.random.default_rng(0).choice(case.pool, 1000, replace=False).tolist()
        exact = 0
        for slot in slots:
            positions = mixture.occurrences(slot)
            exact += len(set(positions.tolist())) == case.repeats and bool((ids(positions) == case.unique + slot).all())
        return out | {"sampled": len(slots), "pool_exact": exact}
    clock.step()
    world = case.nodes * case.ranks
    order = np.empty(case.positions, np.int64)
    for rank in range(world):
        for start in range(rank, case.positions, world * 2**16):
            positions = np.arange(start, min(start + world * 2**16, case.positions), world)
            order[positions] = ids(positions)
    out["whole"] = clock.step()
    return out | counts(case, order)


def import_peer() -> Any:
    warnings.filterwarnings("ignore")
    # The peer's image datasets need a matching torchvision, which is often not installed with a CPU build of torch.
    sys.modules.setdefault("streaming.vision", types.ModuleType("streaming.vision"))
    import streaming

    return streaming


def write_peer_data(folder: Path, case: Case) -> None:
    streaming = import_peer()
    for name, size in (("unique", case.unique), ("pool", case.pool)):
        with streaming.MDSWriter(columns={"id": "int64"}, out=str(folder / name), size_limit=SHARD_BYTES) as writer:
            for number in range(size):
                writer.write({"id": number})


def measure_peer(case: Case, folder: Path) -> dict[str, Any]:
    streaming = import_peer()
    from streaming.base.batching import generate_work
    from streaming.base.world import World

    clock = Clock()
    if case.method == "repeat":
        weights, epoch = ({"repeat": 1}, {"repeat": case.repeats}), {}
    else:
        # Rounded, because 1 - 0.9 < 0.1 in floating point, and the peer would leave out one sequence.
        weights = ({"proportion": round(1 - case.fraction, 9)}, {"proportion": case.fraction})
        epoch = {"epoch_size": case.positions}
    streams = [
        streaming.Stream(local=str(folder / name), **weight)
        for name, weight in zip(("unique", "pool"), weights, strict=True)
    ]
    dataset = streaming.StreamingDataset(streams=streams, batch_size=BATCH, shuffle=True, shuffle_seed=0, **epoch)
    # Make the calls that iterating the dataset makes before it reads a sample, except for the copy to shared memory.
    world = World(case.nodes, case.ranks, 1, 0)
    dataset._resume(world, 0)
    out: dict[str, Any] = {"setup": clock.step()}
    work = generate_work("random", dataset, world, 0, 0)
    out["first"] = out["whole"] = clock.step()  # the peer computes the order of the whole run first
    out["bytes"] = clock.growth()
    clock.step()
    generate_work("random", dataset, world, 0, late(case))
    out["late"] = clock.step()
    order = work.transpose(3, 2, 0, 1, 4).ravel()  # sorted by batch, which is the training order over all ranks
    return out | counts(case, order[order >= 0])  # -1 pads the last batch


def in_own_process(case: Case, folder: Path) -> dict[str, Any]:
    repository = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": str(repository), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--case", json.dumps(case), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"data_peers: {case} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(cases: list[Case]) -> list[tuple[Case, dict[str, Any]]]:
    """Measure the cases of one mixture on the same shards."""
    with tempfile.TemporaryDirectory() as folder:
        if any(case.method != "ours" for case in cases):
            write_peer_data(Path(folder), cases[0])
        rounds = ROUNDS if cases[0].positions == LARGEST_COMMON else 1
        runs = [[in_own_process(case, Path(folder)) for case in cases] for _ in range(rounds)]
    medians = [
        of_case[0]
        | {
            key: statistics.median(result[key] for result in of_case)
            for key in ("setup", "first", "late", "whole", "bytes")
            if key in of_case[0]
        }
        for of_case in zip(*runs, strict=True)
    ]
    return list(zip(cases, medians, strict=True))


def row(case: Case, result: dict[str, Any]) -> str:
    start = f"{case.method:10} {case.positions:>13,} {case.fraction:4} {case.repeats:4} {case.nodes * case.ranks:5}"
    whole = f"{1e3 * result['whole']:9.2f}" if "whole" in result else f"{'-':>9}"
    cost = f"{1e3 * result['setup']:9.2f} {1e3 * result['first']:9.2f} {1e3 * result['late']:9.2f} {whole}"
    memory = f"{result['bytes'] / 1e6:8.2f}"
    if "sampled" in result:
        return f"{start} {cost} {memory}  {result['pool_exact']} of {result['sampled']} sampled slots exactly R times"
    pool = f"{result['pool_exact']}/{case.pool}"
    unique = f"{result['unique_once']}/{case.unique}"
    return (
        f"{start} {cost} {memory} {result['seen'] - case.positions:+5} {pool:>11} {result['pool_least']:>4}-"
        f"{result['pool_most']:<4} {unique:>15} {result['unique_least']}-{result['unique_most']} {result['first_pass']:6.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case = Case(*json.loads(arguments.case))
        print(json.dumps(measure_ours(case) if case.method == "ours" else measure_peer(case, arguments.folder)))
        return
    if importlib.util.find_spec("streaming") is None:
        print("data_peers: mosaicml-streaming is not installed (pip install torch mosaicml-streaming)", file=sys.stderr)
        sys.exit(2)

    version = importlib.metadata.version("mosaicml-streaming")
    print(f"mosaicml-streaming {version} and RepeatMixture; times in ms; peak memory in MB, excluding imports")
    print(
        f"{'method':10} {'positions':>13} {'f':>4} {'R':>4} {'ranks':>5} {'setup':>9} {'first':>9} {'late':>9} {'whole':>9}"
        f" {'memory':>8} {'extra':>5} {'pool = R':>11} {'min-max':>9} {'unique once':>15} {'':3} {'pass 1':>6}"
    )
    methods = ("repeat", "proportion", "ours")
    results: dict[Case, dict[str, Any]] = {}
    mixes = [
        (positions, fraction, 100, 1, 1) for fraction in (0.5, 0.9) for positions in (10**4, 10**5, LARGEST_COMMON)
    ]
    mixes += [(10**5, 0.5, 7, 1, 1), (10**4, 0.5, 100, 4, 8)]
    groups = [[Case(method, *mix) for method in methods] for mix in mixes]
    groups += [[Case("ours", 10**9, fraction, 100)] for fraction in (0.5, 0.9)]
    for cases in groups:
        for case, result in measured(cases):
            results[case] = result
            print(row(case, result), flush=True)
    print(
        "first, late: time to compute the ids of 16 positions at the start and nine tenths of the way through the run\n"
        "whole: time to compute all ids of the run, which the peer does before the first batch\n"
        "extra: number of positions beyond those requested\n"
        "pass 1: share of the pool that occurs in the first |pool| positions of the pool; 1.00 is a complete pass\n"
        "With Stream(repeat=R) and an integer R, the peer repeats each sequence exactly R times if the number of positions\n"
        "is divisible by the number of ranks; otherwise it pads the run with repeats. With Stream(proportion=f), each\n"
        "sequence occurs exactly R times only if f·N = R·pool. Passes over the pool are not separated within an epoch."
    )
    ratios = {}
    for fraction in (0.5, 0.9):
        peer, ours = (results[Case(method, LARGEST_COMMON, fraction, 100)] for method in ("repeat", "ours"))
        ratios |= {
            f"peer_setup_to_first_ids_f{fraction}": (peer["setup"] + peer["first"]) / (ours["setup"] + ours["first"]),
            f"peer_late_ids_f{fraction}": peer["late"] / ours["late"],
            f"peer_whole_order_f{fraction}": (peer["setup"] + peer["whole"]) / (ours["setup"] + ours["whole"]),
            f"peer_memory_f{fraction}": peer["bytes"] / max(ours["bytes"], 4096),
        }
    print(json.dumps({"ratios": {name: round(value, 3) for name, value in ratios.items()}}))


if __name__ == "__main__":
    main()
