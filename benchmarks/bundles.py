"""Compare the speed of training several runs as lanes of one process, one after another, and each in its own process.

    python benchmarks/bundles.py [--device cuda] [--lanes 1 2 4 8 16 32 64] [--models 2x32 2L 3L 4L]

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
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path

from rich.console import Console

from data_prep.data_spec import DataSpec
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from repeat_study.config.run import EvaluationSpec, Run
from repeat_study_cli.tables import WrappedTable

INTERVALS = 5  # per run; the first one is not counted, because it includes filling caches and compiling kernels

# For each model: context, sequences per step, and steps per interval on a CPU and on a GPU.
SHAPES = {
    "2x32": (128, 16, 20, 200),
    "2x64": (128, 16, 12, 200),
    "2L": (512, 16, 2, 100),
    "3L": (512, 16, 1, 50),
    "4L": (512, 16, 1, 50),
}
CPU, CUDA = ("2x32", "2x64"), ("2x32", "2L", "3L", "4L")


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


def trained(runs: list[Run], store: TokenStore, device: str) -> dict[str, float]:
    """Train runs as one bundle. Returns their total tokens per second, the share of the peak, memory in bytes, and seconds."""
    import torch

    from repeat_study.config.resources import Accelerator, Resources
    from repeat_study.records.run_directory import RunDirectory
    from repeat_study.training.trainer import train_bundle

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train_bundle(runs, store, Path(folder), resources=Resources(accelerator=Accelerator(device), lanes=len(runs)))
        seconds = time.perf_counter() - start
        # Speed is not measured at the evaluation before training, and the first interval is not counted.
        rows = RunDirectory(Path(folder) / runs[0].name).timings()[2:]
    rates = [row["tokens_per_second"] * len(runs) for row in rows]
    medians = {"rate": statistics.median(rates), "memory": max(row["memory_bytes"] for row in rows), "seconds": seconds}
    return medians | {"utilisation": statistics.median(row["utilisation"] for row in rows)}


def _process(
    runs: list[Run], folder: Path, device: str, barrier: "multiprocessing.synchronize.Barrier", results: "Queue[float]"
) -> None:
    barrier.wait()
    results.put(trained(runs, TokenStore(folder), device)["rate"])


def in_a_process(runs: list[Run], store: TokenStore, device: str) -> dict[str, float]:
    """Call `trained` in a new process, so that the memory of other runs is not included."""
    with multiprocessing.get_context("spawn").Pool(1) as worker:
        return worker.apply(trained, (runs, TokenStore(store.folder), device))


def at_the_same_time(model: str, processes: int, store: TokenStore, device: str) -> float:
    """Total tokens per second of several simultaneous processes that train one run each."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    started = [
        context.Process(
            target=_process, args=(runs_of(model, 1, store, device, 1000 + n), store.folder, device, barrier, results)
        )
        for n in range(processes)
    ]
    for process in started:
        process.start()
    rates = [results.get(timeout=1800) for _ in started]
    for process in started:
        process.join()
    return sum(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", nargs="+", choices=list(SHAPES))
    parser.add_argument("--lanes", nargs="+", type=int)
    parser.add_argument(
        "--processes",
        nargs="+",
        type=int,
        help="numbers of processes to compare; each process trains one run on the same device",
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    chosen = parser.parse_args()
    cuda = chosen.device == "cuda"
    models = chosen.models or (CUDA if cuda else CPU)
    lanes = chosen.lanes or ((1, 2, 4, 8, 16, 32, 64) if cuda else (1, 2, 4, 8))
    processes = chosen.processes or ((2, 4, 8) if cuda else (2,))
    spec = DataSpec.model_validate(
        {"source": "installed-python", "vocabulary": 1024, "max_tokens": 8_000_000 if cuda else 1_000_000}
    )
    store = prepare(spec, chosen.data_dir, lambda what, share: None)
    name = "cpu"
    if cuda:
        import torch

        name = torch.cuda.get_device_name()
    rows: list[dict[str, object]] = []

    def record(model: str, how: str, rate: float, alone: float, peak: float | None, memory: float | None) -> None:
        rows.append(
            {
                "model": model,
                "how": how,
                "tokens_per_second": round(rate),
                "runs_per_hour": rate * 3600 / runs_of(model, 1, store, chosen.device)[0].tokens,
                "over_one_lane": rate / alone,
                "share_of_peak": peak,
                "bytes_per_lane": memory,
            }
        )
        # Printed after every measurement, so that nothing is lost if the program is stopped.
        print(json.dumps({"device": name, "rows": rows}), flush=True)

    for model in models:
        alone = in_a_process(runs_of(model, 1, store, chosen.device), store, chosen.device)
        for count in lanes:
            bundle = (
                alone if count == 1 else in_a_process(runs_of(model, count, store, chosen.device), store, chosen.device)
            )
            added = (bundle["memory"] - alone["memory"]) / (count - 1) if count > 1 else None
            record(model, f"{count} lanes", bundle["rate"], alone["rate"], bundle["utilisation"], added)
        for count in processes:
            rate = at_the_same_time(model, count, store, chosen.device)
            record(model, f"{count} processes", rate, alone["rate"], None, None)
    table = WrappedTable("model", "how", "tokens/s", "x one lane", "of peak", "memory/lane")
    for row in rows:
        numbers = (f"{row['tokens_per_second']:,}", f"{row['over_one_lane']:.2f}")
        peak = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
        memory = "" if row["bytes_per_lane"] is None else f"{row['bytes_per_lane'] / 1e6:,.1f} MB"  # type: ignore[operator]
        table.add_row(str(row["model"]), str(row["how"]), *numbers, peak, memory)
    Console(width=160, stderr=True).print(table)


if __name__ == "__main__":
    main()
