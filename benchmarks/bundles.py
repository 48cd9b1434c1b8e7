"""Compare the speed of training several runs as lanes of one process, one after another, and each in its own process.

    python -m benchmarks.bundles [--device cuda] [--lanes 1 2 4 8 16 32 64] [--models 2x32 2L 3L 4L] [--cuda-graphs 1 64]

After each measurement, prints a JSON line with everything measured so far; at the end, prints a table. Speeds include
optimizer steps but not evaluations. Training runs one after another is as fast as training one lane. Several processes run at
the same time, each on its own core or all on the same GPU. The column `of peak` is the share of the device's peak FLOP/s: the
published peak of a GPU, or the measured speed of a matrix product on a CPU core. `memory/lane` is the memory that each
additional lane needs.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.data_spec import DataSpec
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from repeat_study.config.run import EvaluationSpec, Run
from repeat_study_cli.tables import WrappedTable

INTERVALS = 5  # per run; the first one is not counted, because it includes filling caches and compiling kernels

# For each model: context, sequences per step, and steps per interval on a CPU and on a GPU.
SHAPES = {
    "2x32": (128, 16, 20, 100),
    "2x64": (128, 16, 12, 100),
    "2L": (512, 16, 2, 50),
    "3L": (512, 16, 1, 30),
    "4L": (512, 16, 1, 20),
}
CPU, CUDA = ("2x32", "2x64"), ("2x32", "2L", "3L", "4L")


def positive(text: str) -> int:
    """An option's value. argparse names the function and the value in its error message."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def runs_of(model: str, count: int, store: TokenStore, device: str, first_seed: int = 0) -> list[Run]:
    context, sequences, on_cpu, on_gpu = SHAPES[model]
    steps = INTERVALS * (on_gpu if device == "cuda" else on_cpu)
    evaluation = EvaluationSpec(
        even_points=INTERVALS, log_points=0, test_sequences=1, pool_sequences=1, seen_sequences=1
    )
    return [
        Run(
            model=model,
            repeats=1,
            seed=first_seed + number,
            tokens=steps * sequences * context,
            context=context,
            sequences_per_step=sequences,
            learning_rate=1e-3,
            evaluation=evaluation,
            corpus=store.fingerprint,
        )
        for number in range(count)
    ]


@dataclass(frozen=True)
class Speed:
    """Tokens per second of all runs together, and, for a bundle, its share of the peak FLOP/s and its memory in bytes."""

    rate: float
    share_of_peak: float | None = None
    memory: float | None = None


def trained(runs: list[Run], store: TokenStore, device: str, cuda_graphs: bool = False) -> Speed:
    """Train runs as one bundle."""
    import torch

    from repeat_study.config.resources import REDUCE_OVERHEAD, Accelerator, Resources
    from repeat_study.records.run_directory import RunDirectory
    from repeat_study.training.trainer import train_bundle

    torch.set_num_threads(1)
    compiling = REDUCE_OVERHEAD if cuda_graphs else None
    resources = Resources(accelerator=Accelerator(device), lanes=len(runs), compile=compiling)
    with tempfile.TemporaryDirectory() as folder:
        train_bundle(runs, store, Path(folder), resources=resources)
        # Speed is not measured at the evaluation before training, and the first interval is not counted.
        rows = RunDirectory(Path(folder) / runs[0].name).timings()[2:]
    return Speed(
        statistics.median(row["tokens_per_second"] * len(runs) for row in rows),
        statistics.median(row["utilisation"] for row in rows),
        max(row["memory_bytes"] for row in rows),
    )


def in_a_process(runs: list[Run], store: TokenStore, device: str, cuda_graphs: bool = False) -> Speed:
    """Call `trained` in a new process, so that the memory of other runs is not included."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
        return worker.submit(trained, runs, TokenStore(store.folder), device, cuda_graphs).result()


def at_the_same_time(bundles: Sequence[list[Run]], store: TokenStore, device: str) -> Speed:
    """Train several bundles simultaneously, each in its own process."""
    context = multiprocessing.get_context("spawn")
    # No process starts training before all have started, so each of them trains one bundle.
    with ProcessPoolExecutor(len(bundles), context, context.Barrier(len(bundles)).wait) as workers:
        started = [workers.submit(trained, runs, TokenStore(store.folder), device) for runs in bundles]
        return Speed(sum(training.result().rate for training in started))


@dataclass
class Comparison:
    """Rows of measurements, printed as a JSON line after each one, so that nothing is lost if the program is stopped."""

    device: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def measure(self, how: str, lanes: int, alone: Speed, run: Run, measurement: Callable[[], Speed]) -> None:
        try:
            speed = measurement()
        except (RuntimeError, OSError) as error:  # such as too little memory for so many lanes; fewer may fit
            self.failures.append(f"{run.model}, {how}: {(str(error).splitlines() or [repr(error)])[0]}")
        else:
            added = None
            if speed.memory is not None and alone.memory is not None and lanes > 1:
                added = (speed.memory - alone.memory) / (lanes - 1)
            self.rows.append(
                {
                    "model": run.model,
                    "how": how,
                    "tokens_per_second": round(speed.rate),
                    "runs_per_hour": speed.rate * 3600 / run.tokens,
                    "over_one_lane": speed.rate / alone.rate,
                    "share_of_peak": speed.share_of_peak,
                    "bytes_per_lane": added,
                }
            )
        print(json.dumps({"device": self.device, "rows": self.rows, "failures": self.failures}), flush=True)

    def table(self) -> WrappedTable:
        table = WrappedTable("model", "how", "tokens/s", "x one lane", "of peak", "memory/lane")
        for row in self.rows:
            numbers = (f"{row['tokens_per_second']:,}", f"{row['over_one_lane']:.2f}")
            peak = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
            memory = "" if row["bytes_per_lane"] is None else f"{row['bytes_per_lane'] / 1e6:,.1f} MB"
            table.add_row(row["model"], row["how"], *numbers, peak, memory)
        return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", nargs="+", choices=list(SHAPES))
    parser.add_argument("--lanes", nargs="+", type=positive)
    parser.add_argument(
        "--processes",
        nargs="+",
        type=positive,
        help="numbers of processes to compare; each process trains one run on the same device",
    )
    parser.add_argument(
        "--cuda-graphs",
        nargs="+",
        type=positive,
        default=[],
        help="numbers of lanes to measure also with resources.compile = reduce-overhead",
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    chosen = parser.parse_args()
    cuda, device = chosen.device == "cuda", chosen.device
    spec = DataSpec.model_validate(
        {"source": "installed-python", "vocabulary": 1024, "max_tokens": 8_000_000 if cuda else 2_000_000}
    )
    store = prepare(spec, chosen.data_dir, lambda what, share: None)
    name = "cpu"
    if cuda:
        import torch

        name = torch.cuda.get_device_name()
    comparison = Comparison(name)
    for model in chosen.models or (CUDA if cuda else CPU):
        single = runs_of(model, 1, store, device)
        alone = in_a_process(single, store, device)
        for count in chosen.lanes or ((1, 2, 4, 8, 16, 32, 64) if cuda else (1, 2, 4, 8)):
            runs = runs_of(model, count, store, device)
            bundle = partial(in_a_process, runs, store, device) if count > 1 else partial(replace, alone)
            comparison.measure(f"{count} lanes", count, alone, single[0], bundle)
        for count in chosen.cuda_graphs:
            graphs = partial(in_a_process, runs_of(model, count, store, device), store, device, True)
            comparison.measure(f"{count} lanes, CUDA graphs", count, alone, single[0], graphs)
        for count in chosen.processes or ((2, 4, 8) if cuda else (2,)):
            bundles = [runs_of(model, 1, store, device, 1000 + number) for number in range(count)]
            processes = partial(at_the_same_time, bundles, store, device)
            comparison.measure(f"{count} processes", 1, alone, single[0], processes)
    Console(width=160, stderr=True).print(comparison.table())
    for failure in comparison.failures:
        print(f"failed: {failure}", file=sys.stderr)


if __name__ == "__main__":
    main()
