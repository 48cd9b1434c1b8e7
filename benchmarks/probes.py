"""Measure the cost of the probes as a share of training, or compare them with TransformerLens on a trained run.

    python benchmarks/probes.py [--data-dir data]
    python benchmarks/probes.py --transformer-lens runs/STUDY/RUN    # needs pip install 'transformer-lens<4'

Prints a table and then one JSON line of ratios. Measurements use one thread and alternate. For each model size in the laptop
study, the first command divides the time that a run's evaluations spend on probes (copying, heads and their ablations, and
in-context score) by the time of its optimizer steps. The second command is described in lens.py and exits with code 1 if the
scores differ.
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
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Run
from repeat_study.config.study import load_study
from repeat_study.local.workers import WORKER_ENVIRONMENT
from repeat_study.probes.evaluation import evaluator
from repeat_study.probes.head_table import head_table
from repeat_study.probes.in_context import in_context
from repeat_study.training.dataset import MixtureDataset
from repeat_study.training.lightning_module import LanguageModeling, clip_gradients_per_lane

STUDY = Path(__file__).resolve().parents[1] / "studies" / "laptop.toml"
GOAL = 0.05  # maximum share of training time for all probes
STEPS = 50  # number of optimizer steps in one measurement
EVALUATIONS = 4  # number of evaluations in one measurement
PROBES = ("copying", "heads", "head table", "in-context")

Functions = dict[str, Callable[[], object]]  # functions to be timed, by name


def seconds(work: Callable[[], object], times: int) -> float:
    start = time.process_time()  # CPU time, to exclude other processes
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def timed_functions(run: Run, store: TokenStore) -> Functions:
    """Functions that run an optimizer step, each probe, and a complete evaluation. The steps change the weights during timing."""
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
    """Print tables of times and of shares of training time. Returns the ratios."""
    torch.set_num_threads(1)
    study = load_study(STUDY)
    store = prepare(study.data, data_dir)
    runs = study.runs(StudyTexts(store.fingerprint, ()))
    counts = Counter(run.model for run in runs)
    # Take the run with the largest R for each size, because a clean run has no pool.
    of_size = {run.model: run for run in sorted(runs, key=lambda run: (run.shape.d_model, run.repeats))}
    functions_by_size = {size: timed_functions(run, store) for size, run in of_size.items()}
    times: dict[str, dict[str, list[float]]] = {
        size: {name: [] for name in functions} for size, functions in functions_by_size.items()
    }
    for round_ in range(-1, rounds):  # round -1 is a warm-up
        for size, functions in functions_by_size.items():
            for name in list(functions) if round_ % 2 else reversed(functions):
                elapsed = seconds(functions[name], STEPS if name == "step" else EVALUATIONS)
                if round_ >= 0:
                    times[size][name].append(elapsed)
    columns = ("step", *PROBES, "evaluation")
    print(
        f"{'size':8} {'runs':>4} {'steps':>5} {'evaluations':>11}  CPU ms of: {' '.join(f'{name:>10}' for name in columns)}"
    )
    spent: dict[str, np.ndarray] = {}  # seconds of a run's training, probes and evaluations, [3, rounds]
    for size, run in of_size.items():
        points = len(run.evaluation.steps(run.steps))
        each = {name: np.array(times[size][name]) for name in columns}
        probes = sum(each[name] for name in PROBES)
        spent[size] = np.stack([run.steps * each["step"], points * probes, points * each["evaluation"]])
        cells = " ".join(f"{1e3 * np.median(each[name]):10.2f}" for name in columns)
        print(f"{size:8} {counts[size]:>4} {run.steps:>5} {points:>11} {'':12}{cells}")
    spent[study.name] = sum(counts[size] * seconds_of for size, seconds_of in spent.items())
    print(f"share of training time; median and range over {rounds} rounds")
    ratios = {}
    for name, (training, probes, evaluations) in spent.items():
        cells = []
        for activity, seconds_of in (("probes", probes), ("evaluations", evaluations)):
            share = seconds_of / training
            ratios[f"{name} {activity} / training"] = float(np.median(share))
            cells.append(f"{activity} {np.median(share):6.2%} ({share.min():.2%}-{share.max():.2%})")
        print(f"{name:8} {', '.join(cells)}")
    print(f"goal: in the study {study.name}, all probes together take at most {GOAL:.0%} of the training time")
    return ratios


def main() -> None:
    if missing := {key: value for key, value in WORKER_ENVIRONMENT.items() if key not in os.environ}:
        # These variables take effect only at process start.
        os.execve(sys.executable, sys.orig_argv, os.environ | missing)
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--transformer-lens", type=Path, metavar="RUN_DIR", help="directory of a trained run on which to compare"
    )
    arguments.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of token stores")
    arguments.add_argument("--rounds", type=int, default=9)
    options = arguments.parse_args()
    if options.transformer_lens and importlib.util.find_spec("transformer_lens") is None:
        print("probes: TransformerLens is not installed (pip install 'transformer-lens<4')", file=sys.stderr)
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
