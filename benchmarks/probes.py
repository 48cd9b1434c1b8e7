"""Cost of the probes: as a share of training, and against TransformerLens on a trained run.

    python benchmarks/probes.py [--data-dir data]
    python benchmarks/probes.py --transformer-lens runs/STUDY/RUN    # needs pip install 'transformer-lens<4'

Prints a table and, last, one JSON line of ratios, measured in alternation in this run on one thread. For each model size
of the laptop study: the time that all evaluations of a run spend on probes (copying, heads and their ablations, in-context
score), divided by the time of its optimizer steps. For a trained run see lens.py; exit code 1 if the two disagree.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.config.study import load_study
from repeat_study.local.workers import WORKER_ENVIRONMENT
from repeat_study.probes.evaluation import evaluator
from repeat_study.probes.head_table import head_table
from repeat_study.probes.in_context import in_context
from repeat_study.training.dataset import MixtureDataset
from repeat_study.training.lightning_module import LanguageModeling, clip_gradients_per_lane

STUDY = Path(__file__).resolve().parents[1] / "studies" / "laptop.toml"
GOAL = 0.05  # probes take at most this share of training
STEPS = 50  # optimizer steps timed together
EVALUATIONS = 4  # evaluations timed together
PROBES = ("copying", "heads", "head table", "in-context")

Parts = dict[str, Callable[[], object]]  # name: work to be timed


def seconds(work: Callable[[], object], times: int) -> float:
    start = time.process_time()  # CPU time, so that other processes do not count
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def parts_of(run: Run, store: TokenStore) -> Parts:
    """One optimizer step, each probe of an evaluation, and a complete evaluation. The weights change during timing."""
    module = LanguageModeling([run], store.vocabulary)
    model, optimizer, parameters = module.model, module.configure_optimizers(), list(module.model.parameters())
    batches = MixtureDataset([(run.mixture(), run.draw(store))], run.sequences_per_step)
    evaluate, numbers = evaluator(run, store), cycle(range(run.steps))
    heads, test_losses = evaluate.heads, model.token_losses(evaluate.texts.test[None])[0]
    assert heads
    scores = heads(model)

    def step() -> None:
        number = next(numbers)
        for group in optimizer.param_groups:
            group["lr"] = module.learning_rate(number)
        batch = batches[number]
        model(batch[..., :-1], batch[..., 1:]).sum().backward()
        clip_gradients_per_lane(parameters, run.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def table() -> None:
        rows = head_table(model, scores, evaluate.copying, evaluate.texts.test)
        rows.best_heads(), rows.flat()

    return {
        "step": step,
        "copying": lambda: evaluate.copying(model).row("copying"),
        "heads": lambda: heads(model).random_copying().row("random_copying"),
        "head table": table,
        "in-context": lambda: in_context(test_losses),
        "evaluation": lambda: evaluate(model, run.steps),
    }


def share_of_training(data_dir: Path, rounds: int) -> dict[str, float]:
    """Print both tables; returns the ratios."""
    torch.set_num_threads(1)
    study = load_study(STUDY)
    store = prepare(study.data, data_dir)
    runs = study.runs(store.fingerprint, further_tests=())
    counts = Counter(run.model for run in runs)
    # For each size the run with the largest R, so that it has a pool if any run of the size has one.
    of_size = {run.model: run for run in sorted(runs, key=lambda run: (run.shape.d_model, run.repeats))}
    parts = {size: parts_of(run, store) for size, run in of_size.items()}
    times: dict[str, dict[str, list[float]]] = {size: {name: [] for name in works} for size, works in parts.items()}
    for round_ in range(-1, rounds):  # round -1 is a warm-up
        for size, works in parts.items():
            for name in list(works) if round_ % 2 else reversed(works):
                elapsed = seconds(works[name], STEPS if name == "step" else EVALUATIONS)
                if round_ >= 0:
                    times[size][name].append(elapsed)
    columns = ("step", *PROBES, "evaluation")
    print(
        f"{'size':8} {'runs':>4} {'steps':>5} {'evaluations':>11}  CPU ms of: {' '.join(f'{name:>10}' for name in columns)}"
    )
    spent: dict[str, np.ndarray] = {}  # seconds per run of training, probes and evaluations, shape [3, rounds]
    for size, run in of_size.items():
        points = len(run.evaluation.steps(run.steps))
        each = {name: np.array(times[size][name]) for name in columns}
        probes = sum(each[name] for name in PROBES)
        spent[size] = np.stack([run.steps * each["step"], points * probes, points * each["evaluation"]])
        cells = " ".join(f"{1e3 * np.median(each[name]):10.2f}" for name in columns)
        print(f"{size:8} {counts[size]:>4} {run.steps:>5} {points:>11} {'':12}{cells}")
    spent[study.name] = sum(counts[size] * seconds_of for size, seconds_of in spent.items())
    print(f"share of training time; median and range of {rounds} rounds")
    ratios = {}
    for name, (training, probes, evaluations) in spent.items():
        cells = []
        for part, seconds_of in (("probes", probes), ("evaluations", evaluations)):
            share = seconds_of / training
            ratios[f"{name} {part} / training"] = float(np.median(share))
            cells.append(f"{part} {np.median(share):6.2%} ({share.min():.2%}-{share.max():.2%})")
        print(f"{name:8} {', '.join(cells)}")
    print(f"goal: all probes of {study.name} together at most {GOAL:.0%}")
    return ratios


def main() -> None:
    if missing := {key: value for key, value in WORKER_ENVIRONMENT.items() if key not in os.environ}:
        os.execve(sys.executable, sys.orig_argv, os.environ | missing)  # these variables are read only at process start
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--transformer-lens", type=Path, metavar="RUN_DIR", help="directory of a trained run to compare on"
    )
    arguments.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of token stores")
    arguments.add_argument("--rounds", type=int, default=9)
    options = arguments.parse_args()
    if options.transformer_lens and importlib.util.find_spec("transformer_lens") is None:
        print("probes: this Python has no TransformerLens (pip install 'transformer-lens<4')", file=sys.stderr)
        sys.exit(2)
    try:
        if options.transformer_lens:
            from lens import compared

            ratios = compared(options.transformer_lens, options.data_dir, options.rounds)
        else:
            ratios = share_of_training(options.data_dir, options.rounds)
    except InputError as error:
        print(f"probes: {error}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps({"ratios": {name: round(ratio, 4) for name, ratio in ratios.items()}}))


if __name__ == "__main__":
    main()
