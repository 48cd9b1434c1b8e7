"""What lanes are worth: runs per hour of 1, 2, 4, ... runs in lockstep in one process, against the same runs one after another
and against as many processes on one device.

    python benchmarks/bundles.py [--device cuda] [--lanes 1 2 4 8 16 32 64] [--models 2x32 2L 3L 4L]

Prints a table and, last, one JSON line of ratios, all taken within this run. Speed is that of the steps, evaluations left
out; `of peak` is the share of the device's FLOP/s (a GPU's published number, a core's by a matrix product); memory is what one
lane adds. One after another is the speed of one lane. Processes have a core or, on a GPU, the whole device each and all of them at
once, and count what they train in the seconds in which all are at work.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
from rich.console import Console

from data_prep.data_spec import DataSpec
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from repeat_study.config.run import EvaluationSpec, Run
from repeat_study_cli.tables import WrappedTable

INTERVALS = 5  # of a run; the first, in which caches fill and kernels are compiled, is left out

# model: context, sequences per step, steps per interval of one lane on a CPU and on a GPU
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
    """Tokens per second of all runs together, share of the peak, bytes held; medians over intervals."""
    import torch

    from repeat_study.config.resources import Accelerator, Resources
    from repeat_study.records.run_directory import RunDirectory
    from repeat_study.training.trainer import train_bundle

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        train_bundle(runs, store, Path(folder), resources=Resources(accelerator=Accelerator(device), lanes=len(runs)))
        seconds = time.perf_counter() - begun
        rows = RunDirectory(Path(folder) / runs[0].name).timings()[2:]  # the untrained model has no speed
    rates = [row["tokens_per_second"] * len(runs) for row in rows]
    found = {"rate": statistics.median(rates), "memory": max(row["memory_bytes"] for row in rows), "seconds": seconds}
    return found | {"utilisation": statistics.median(row["utilisation"] for row in rows)}


def _process(
    runs: list[Run], folder: Path, device: str, barrier: "multiprocessing.synchronize.Barrier", results: "Queue[float]"
) -> None:
    barrier.wait()
    results.put(trained(runs, TokenStore(folder), device)["rate"])


def in_a_process(runs: list[Run], store: TokenStore, device: str) -> dict[str, float]:
    """The same in a process of its own, whose memory is its own too."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(trained, (runs, TokenStore(store.folder), device))


def side_by_side(model: str, processes: int, store: TokenStore, device: str) -> float:
    """Tokens per second of as many processes with a run each, all at once."""
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
    parser.add_argument("--processes", nargs="+", type=int, help="with a run each, sharing the device")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    chosen = parser.parse_args()
    cuda = chosen.device == "cuda"
    models = chosen.models or (CUDA if cuda else CPU)
    lanes = chosen.lanes or ((1, 2, 4, 8, 16, 32, 64) if cuda else (1, 2, 4, 8))
    processes = chosen.processes or ((2, 4, 8) if cuda else (2,))
    spec = DataSpec.model_validate({"source": "installed-python", "vocabulary": 1024, "max_tokens": 20_000_000})
    store = prepare(spec, chosen.data_dir, lambda what, share: None)
    name = "cpu"
    if cuda:
        import torch

        name = torch.cuda.get_device_name()
    console = Console(width=160)
    table = WrappedTable("model", "how", "tokens/s", "runs/hour of 1.5M tokens", "x one lane", "of peak", "memory/lane")
    ratios: dict[str, float] = {}
    for model in models:
        alone = in_a_process(runs_of(model, 1, store, chosen.device), store, chosen.device)
        for count in lanes:
            found = (
                alone if count == 1 else in_a_process(runs_of(model, count, store, chosen.device), store, chosen.device)
            )
            added = (found["memory"] - alone["memory"]) / max(count - 1, 1) if count > 1 else np.nan
            ratio = found["rate"] / alone["rate"]
            memory = "" if count == 1 else f"{added / 1e6:,.1f} MB"
            cells = (f"{found['rate']:,.0f}", f"{found['rate'] * 3600 / 1_536_000:,.1f}", f"{ratio:.2f}")
            table.add_row(model, f"{count} lanes", *cells, f"{found['utilisation']:.1%}", memory)
            ratios[f"{model}, {count} lanes / one after another"] = ratio
        for count in processes:
            rate = side_by_side(model, count, store, chosen.device)
            ratio = rate / alone["rate"]
            table.add_row(
                model, f"{count} processes", f"{rate:,.0f}", f"{rate * 3600 / 1_536_000:,.1f}", f"{ratio:.2f}", "", ""
            )
            ratios[f"{model}, {count} processes / one after another"] = ratio
    console.print(table)
    console.print(f"device: {name}; one thread per process")
    print(json.dumps({"device": name, "ratios": ratios}))


if __name__ == "__main__":
    main()
