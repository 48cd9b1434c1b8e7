"""Compare training speed with nanoGPT's own model and loop, and with a bare loop over our model.

    python -m benchmarks.training --nanogpt path/to/nanoGPT [--device cuda]

Prints a JSON line of all ratios so far after each program, and a table after each shape. The programs alternate. Each runs in a
new process with one thread, and all use the same batch size, shape, precision and number of tokens. Our program is
repeat_study.training.trainer.train on a run directory, including everything that it writes. nanoGPT's train.py is not modified
and is timed by the arrival of its log lines. On a CPU, it runs both with and without the heap settings of our worker processes.
No program evaluates during the measured intervals.
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.data_spec import DataSpec
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from repeat_study.config.run import EvaluationSpec, Run
from repeat_study.cost import run_flops
from repeat_study.local.workers import WORKER_ENVIRONMENT

INTERVALS = 6  # per run; the first one is not counted, because it includes filling caches and compiling kernels

# Each shape: name, vocabulary, context, sequences per step, steps per interval.
CPU = [
    ("2x32", 1024, 128, 16, 40),
    ("2x64", 1024, 128, 16, 25),
    ("2x128", 1024, 128, 16, 10),
    ("6x384", 4096, 256, 4, 5),
]
CUDA = [("2L", 50_304, 1024, 16, 50), ("4L", 50_304, 1024, 16, 50), ("8L", 50_304, 1024, 16, 25)]


def some_run(shape: tuple[str, int, int, int, int], store: TokenStore, seed: int) -> Run:
    name, vocabulary, context, sequences, steps = shape
    return Run(
        model=name,
        repeats=1,
        seed=seed,  # gives every round its own run directory
        tokens=INTERVALS * steps * sequences * context,
        context=context,
        sequences_per_step=sequences,
        vocabulary_multiple=vocabulary,
        learning_rate=1e-3,
        evaluation=EvaluationSpec(
            even_points=INTERVALS, log_points=0, test_sequences=1, pool_sequences=1, seen_sequences=1
        ),
        corpus=store.fingerprint,
    )


def ours(folder: Path, store: TokenStore, run: Run, device: str) -> float:
    """Median tokens per second of `train` over the intervals."""
    from repeat_study.config.resources import Resources
    from repeat_study.records.run_directory import RunDirectory
    from repeat_study.training.trainer import train

    train(run, store, folder, resources=Resources(accelerator=device))
    rates = [timing["tokens_per_second"] for timing in RunDirectory(folder / run.name).timings()]
    # Speed is not measured at the evaluation before training, and the first interval is not counted.
    return statistics.median(rates[2:])


def bare(store: TokenStore, run: Run, device: str) -> float:
    """Median tokens per second of a plain loop that does the same work: batch, loss, backward pass, clipping, AdamW and schedule."""
    import torch

    from repeat_study.training.dataset import MixtureDataset
    from repeat_study.training.lightning_module import LanguageModeling, clip_gradients_per_lane

    module = LanguageModeling([run], store.vocabulary).to(device)
    if device == "cuda":
        module.model.compile_parts()
    optimizer, parameters = module.configure_optimizers(), list(module.model.parameters())
    batches = MixtureDataset([(run.mixture(), run.draw(store))], run.sequences_per_step)
    per_interval, rates = run.steps // INTERVALS, []
    for interval in range(INTERVALS):
        start = time.perf_counter()
        for step in range(interval * per_interval, (interval + 1) * per_interval):
            for group in optimizer.param_groups:
                group["lr"] = module.learning_rate(step)
            batch = batches[step].to(device)
            with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
                loss = module.model(batch[..., :-1], batch[..., 1:]).sum()
            loss.backward()
            clip_gradients_per_lane(parameters, run.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(per_interval * run.tokens_per_step / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def peer(nanogpt: Path, folder: Path, run: Run, device: str, environment: dict[str, str]) -> float:
    """Median tokens per second of nanoGPT's train.py over the same intervals."""
    shape = run.shape
    options = {
        "dataset": folder,
        "out_dir": folder / "out",
        "device": device,
        "dtype": "bfloat16" if device == "cuda" else "float32",
        "compile": device == "cuda",
        "batch_size": run.sequences_per_step,
        "block_size": run.context,
        "gradient_accumulation_steps": 1,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_embd": shape.d_model,
        "max_iters": run.steps,
        "eval_iters": 1,
        "eval_interval": 10**9,
        "log_interval": run.steps // INTERVALS,  # nanoGPT waits for the GPU when it logs
    }
    arguments = [f"--{key}={value}" for key, value in options.items()]
    # The arrival of log lines is timed, because the step times that nanoGPT prints do not include waiting for the GPU.
    arrivals, length = [], run.steps // INTERVALS
    process = subprocess.Popen(
        [sys.executable, "-u", "train.py", *arguments],
        cwd=nanogpt,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("iter "):
            arrivals.append(time.perf_counter())
    if process.wait():
        raise SystemExit(f"nanoGPT's train.py failed:\n{''.join(lines)[-2000:]}")
    intervals = [later - earlier for earlier, later in pairwise(arrivals)]
    return length * run.tokens_per_step / statistics.median(intervals[1:])


def in_a_process(
    program: str, folder: Path, store: TokenStore, run: Run, device: str, environment: dict[str, str]
) -> float:
    arguments = [
        sys.executable,
        __file__,
        "--program",
        program,
        str(folder),
        str(store.folder),
        run.model_dump_json(),
        device,
    ]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{program} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def run_program(program: str, folder: str, store: str, run: str, device: str) -> None:
    import torch

    torch.set_num_threads(1)
    tokens, spec = TokenStore(Path(store)), Run.model_validate_json(run)
    print(ours(Path(folder), tokens, spec, device) if program == "ours" else bare(tokens, spec, device))


def write_for_peer(store: TokenStore, vocabulary: int, folder: Path) -> None:
    folder.mkdir()
    tokens = np.asarray(store.train).astype(np.uint16)
    tokens.tofile(folder / "train.bin")
    tokens.tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocabulary}))


def ratios_of(rows: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Our speed relative to each other program, one ratio for each round in which both were measured."""
    ours = rows.get("ours", [])
    ratios = {
        program: [own / other for own, other in zip(ours, rates, strict=False)]
        for program, rates in rows.items()
        if program != "ours"
    }
    return {program: each for program, each in ratios.items() if each}


def tflops(run: Run, store: TokenStore, tokens_per_second: float) -> float:
    return run_flops(run, store.vocabulary) / (run.positions * run.context) * tokens_per_second / 1e12


def compare(
    shape: tuple[str, int, int, int, int],
    store: TokenStore,
    folder: Path,
    options: argparse.Namespace,
    measured: dict[str, float],
) -> None:
    """Run all programs in turn, add the ratios to `measured`, and print them as JSON after each program, and as text at the end."""
    default = {key: value for key, value in os.environ.items() if key not in WORKER_ENVIRONMENT} | {
        "OMP_NUM_THREADS": "1"
    }
    tuned = default | WORKER_ENVIRONMENT
    name, vocabulary, context, sequences, _ = shape
    device, runs = options.device, folder / "runs"
    rows: dict[str, list[float]] = {}
    if options.nanogpt:
        write_for_peer(store, vocabulary, folder / name)
    for number in range(options.rounds):
        run = some_run(shape, store, number)
        programs: dict[str, Callable[[], float]] = {
            "ours": partial(in_a_process, "ours", runs, store, run, device, tuned)
        }
        if options.nanogpt:
            paths = options.nanogpt.resolve(), folder / name
            programs["nanoGPT"] = partial(peer, *paths, run, device, tuned)
            if device == "cpu":
                programs["nanoGPT, default heap"] = partial(peer, *paths, run, "cpu", default)
        programs["bare"] = partial(in_a_process, "bare", runs, store, run, device, tuned)
        for program in reversed(programs) if number % 2 else list(programs):
            rows.setdefault(program, []).append(programs[program]())
            measured |= {f"{name} ours / {other}": statistics.median(each) for other, each in ratios_of(rows).items()}
            if device == "cuda" and "ours" in rows:
                rate = statistics.median(rows["ours"])
                measured[f"{name} utilisation"] = tflops(run, store, rate) / options.peak
            # Printed after every program, so that nothing is lost if this one is stopped.
            print(json.dumps({"ratios": {key: round(ratio, 3) for key, ratio in measured.items()}}), flush=True)
    rate = statistics.median(rows["ours"])
    precision = "float32" if device == "cpu" else "bfloat16"
    print(f"{name:8} {f'{sequences} x {context}':>11} {vocabulary:>10}  ours {rate:,.0f} tokens/s, {precision}")
    if device == "cuda":
        speed = tflops(run, store, rate)
        print(f"{'':32} {speed:.0f} TFLOP/s, {speed / options.peak:.0%} of the peak")
    for program, each in ratios_of(rows).items():
        print(
            f"{'':32} / {program} ({statistics.median(rows[program]):,.0f}):"
            f" {statistics.median(each):.3f} ({min(each):.3f}-{max(each):.3f})",
            flush=True,
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--nanogpt", type=Path, help="checkout of nanoGPT; without this option, only the bare loop is compared"
    )
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument(
        "--shapes",
        nargs="*",
        choices=sorted({shape[0] for shape in (*CPU, *CUDA)}),
        help="names of the shapes to measure (default: all)",
    )
    arguments.add_argument("--peak", type=float, default=989.0, help="peak speed of the GPU in TFLOP/s")
    arguments.add_argument("--data-dir", type=Path, help="folder of the token store (default: a temporary folder)")
    arguments.add_argument("--program", nargs=5, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.program:
        run_program(*options.program)
        return
    if options.rounds < 1:
        arguments.error(f"--rounds: {options.rounds} found; expected at least 1")
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data: dict[str, Any] = {
            "source": "installed-python",
            "vocabulary": 1024,
            "max_tokens": 2_000_000 if options.device == "cpu" else 8_000_000,
        }
        store = prepare(DataSpec.model_validate(data), options.data_dir or folder / "data")
        print(f"{'shape':8} {'batch':>11} {'vocabulary':>10}  median tokens/s; ratios with their range over the rounds")
        for shape in CPU if options.device == "cpu" else CUDA:
            if not options.shapes or shape[0] in options.shapes:
                compare(shape, store, folder, options, measured)
    print(json.dumps({"ratios": {name: round(ratio, 3) for name, ratio in measured.items()}}))


if __name__ == "__main__":
    main()
