"""Measure the time and memory that `repeat-study report` needs for a study of 500 runs with 200 evaluations each.

The baseline reads the same files once with pandas and pyarrow, which is the least that any report must do. Both run as separate
processes. The files have the same format and size as after training, but their numbers are random. Prints a table
and then one JSON line of ratios, all measured in the same run of this script.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from repeat_study.config.run import EvaluationSpec, Run
from repeat_study.probes.positions import position_bands
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.spec_record import spec_record

EVALUATIONS = 200
MODELS = ("2x64", "2x128", "4x128", "4x256")
REPEATS = (2, 3, 4, 6, 10, 15, 30, 60, 100, 200, 400, 1000)
FRACTIONS = (0.5, 0.9)
SEEDS = range(5)  # 20 clean and 480 repeated runs
COPIES, PARAGRAPH = 4, 32  # number of copies of the paragraph, and number of tokens per copy
OF_HEADS = ("prefix_matching", "previous_token", "copying", "attribution")
ABLATIONS = ("copying_loss", "copying_gain", "in_context_score")
REPORT = "import sys; from pathlib import Path; from analysis.report.build import write_report; write_report(Path(sys.argv[1]))"
PEER = """
import sys
from pathlib import Path
import pandas as pd
from pyarrow import parquet
tables = [pd.read_json(path, lines=True) for path in sorted(Path(sys.argv[1]).glob("*/metrics.jsonl"))]
evaluations = pd.concat(tables)
for path in sorted(Path(sys.argv[1]).glob("*/*.parquet")):
    parquet.read_table(path)
"""


def write_study(folder: Path) -> int:
    """Write a folder of finished runs with plausible loss curves. Returns the number of runs."""
    arms = [(1, 0.0), *((repeats, fraction) for fraction in FRACTIONS for repeats in REPEATS)]
    runs = [
        Run(
            model=model,
            repeats=repeats,
            repeated_fraction=fraction,
            seed=seed,
            evaluation=EvaluationSpec(),
            corpus="0" * 16,
            tokens=12_000 * 16 * 128,
            context=128,
            sequences_per_step=16,
            learning_rate=3e-3,
        )
        for model in MODELS
        for repeats, fraction in arms
        for seed in SEEDS
    ]
    for number, run in enumerate(runs):
        write_run(folder, run, np.random.default_rng(number))
    return len(runs)


def write_run(folder: Path, run: Run, rng: np.random.Generator) -> None:
    """Write one finished run: spec, metrics, timing, sessions, heads, paragraph, and done.json with their checksums."""
    directory = RunDirectory(folder / run.name)
    directory.make()
    store: Any = SimpleNamespace(vocabulary=1024)
    directory.spec.write_text(json.dumps(spec_record(run, store), indent=1) + "\n")
    steps = np.unique(np.linspace(0, run.steps, EVALUATIONS).round().astype(int))
    share = steps / run.steps
    harm = run.repeated_fraction * np.exp(-(np.log10(run.repeats / 60) ** 2)) if run.repeats > 1 else 0.0
    end = 2.2 + 40 * run.shape.parameters_non_embedding**-0.3
    loss = end + (7 - end) * np.exp(-8 * share) + harm * np.sin(np.pi * share) * 2 + rng.normal(0, 0.01, len(steps))
    formed = np.clip(share * 2 - harm * 2, 0, 0.8) + 0.03
    rows = []
    for place, step in enumerate(steps):
        row = {"step": int(step), "tokens": int(step) * 2048, "train_loss": loss[place] - 0.1, "gradient_norm": 0.3}
        row |= {"learning_rate": 3e-3, "test_loss": loss[place], "pool_loss": loss[place] * (1 - share[place] / 2)}
        row |= {"seen_unique_loss": loss[place] - 0.01, "prefix_matching": formed[place], "copying_score": 0.1}
        for name in ("in_context_score", "copying_loss", "copying_gain", "random_copying_loss", "random_copying_gain"):
            row |= {name: loss[place] / 3 + rng.normal(0, 0.01), f"{name}_ci": rng.uniform(0, 0.1)}
        for name in ("copying_gain", "random_copying_gain", "prefix_matching", "previous_token", "copying_score"):
            row |= {f"{name}_null": rng.uniform(0, 0.04), f"{name}_ci": rng.uniform(0, 0.01)}
        row |= {"ablation_copying_gain": 0.1, "ablation_copying_gain_ci": 0.05, "ablation_copying_gain_null": 0.08}
        row |= {"previous_token": 0.05, "copying_gain_null_ci": 0.1, "random_copying_gain_null_ci": 0.1}
        row["loss_by_position"] = (loss[place] + 1 / (1 + np.arange(len(position_bands(run.context))))).tolist()
        for name in ("copying_loss_per_copy", "random_copying_loss_per_copy"):
            row[name] = (loss[place] + rng.normal(0, 0.1, COPIES)).tolist()
        rows.append(row)
    directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    timing = {"train_seconds": 1.0, "evaluation_seconds": 0.1, "saving_seconds": 0.0}
    directory.timing.write_text("".join(json.dumps({"step": row["step"], **timing}) + "\n" for row in rows))
    directory.sessions.write_text(json.dumps({"step": 0, "precision": "float32"}) + "\n")
    parquet.write_table(heads_table(run, steps, formed, rng), directory.heads)
    parquet.write_table(paragraph_table(steps, loss, rng), directory.paragraph)
    directory.finish([row["step"] for row in rows])


def heads_table(run: Run, steps: np.ndarray, formed: np.ndarray, rng: np.random.Generator) -> pa.Table:
    layers, heads = run.shape.layers, run.shape.heads
    rows = len(steps) * layers * heads
    columns: dict[str, np.ndarray] = {
        "step": steps.repeat(layers * heads),
        "tokens": steps.repeat(layers * heads) * 2048,
        "layer": np.tile(np.arange(layers).repeat(heads), len(steps)),
        "head": np.tile(np.arange(heads), len(steps) * layers),
        "ov_copying": rng.uniform(-1, 1, rows),
    }
    for name in OF_HEADS:
        columns |= {f"{name}{suffix}": rng.uniform(0, 0.04, rows) for suffix in ("", "_ci", "_null", "_null_ci")}
    for name in ABLATIONS:
        columns |= {f"ablation_{name}{suffix}": rng.uniform(0, 0.05, rows) for suffix in ("", "_ci")}
    columns |= {f"ablation_copying_gain_null{suffix}": rng.uniform(0, 0.05, rows) for suffix in ("", "_ci")}
    columns["prefix_matching"][layers * heads - 1 :: layers * heads] = formed
    return pa.table(columns)


def paragraph_table(steps: np.ndarray, loss: np.ndarray, rng: np.random.Generator) -> pa.Table:
    tokens = COPIES * PARAGRAPH
    return pa.table(
        {
            "step": steps.repeat(tokens),
            "tokens": steps.repeat(tokens) * 2048,
            "copy": np.tile(np.arange(1, COPIES + 1).repeat(PARAGRAPH), len(steps)),
            "token": [f" t{place % PARAGRAPH}" for place in range(tokens)] * len(steps),
            "loss": loss.repeat(tokens) + rng.uniform(-1, 1, tokens * len(steps)),
        }
    )


def measure(code: str, folder: Path) -> tuple[float, float, float]:
    """Run a Python process. Returns the elapsed seconds, and the CPU seconds and peak resident GB of the process and its children."""
    start, peak = time.perf_counter(), 0
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code, str(folder)], os.environ)
    while (ended := os.wait4(pid, os.WNOHANG))[0] == 0:
        peak = max(peak, sum(map(resident, [pid, *children(pid)])))
        time.sleep(0.05)
    _, status, usage = ended  # includes the CPU time of children that have exited
    assert status == 0, code
    alone = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, max(peak, alone) / 1e9


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resident(pid: int) -> int:
    """Resident bytes of a process, including shared pages. 0 if the process has ended or there is no /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="report-")) if len(sys.argv) < 2 else Path(sys.argv[1])
    try:
        count = write_study(folder)
        megabytes = sum(path.stat().st_size for path in folder.glob("*/*.*")) / 1e6
        os.sync()
        measured = {"report": measure(REPORT, folder), "reading the files once": measure(PEER, folder)}
        page = (folder / "report.html").stat().st_size / 1e6
    finally:
        if len(sys.argv) < 2:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{count} runs x {EVALUATIONS} evaluations, {megabytes:,.0f} MB of records; report.html {page:.1f} MB")
    print(f"{'':24}seconds   CPU seconds   peak GB")
    for name, (seconds, processor, memory) in measured.items():
        print(f"{name:24}{seconds:7.1f}   {processor:11.1f}   {memory:7.2f}")
    ratios = {
        f"report over reading, {quantity}": round(ours / theirs, 2)
        for quantity, ours, theirs in zip(("seconds", "CPU seconds", "memory"), *measured.values(), strict=True)
    }
    print(json.dumps({"ratios": ratios}))


if __name__ == "__main__":
    main()
