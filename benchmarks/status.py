"""Compare how long `repeat-study status` and `sweep` take for a thousand runs and for ten runs.

Both commands run as separate processes. All jobs are held in the queue of a temporary SLURM cluster, so SLURM must be
installed. Every run has a copy of the records of one small run, and half of the copies lack done.json. Prints a table and then
one JSON line of ratios, all measured in the same run of this script.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep.prepare import prepare
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.study import load_study
from repeat_study.training.trainer import train
from slurm.dev_cluster import DevCluster

ROUNDS = 5
STUDY = """
[data]
source = {{kind = "files", paths = ["{library}/email", "{library}/json"]}}
vocabulary = 320
max_tokens = 1_000_000
test_fraction = 0.1
[training]
tokens = 16_384
context = 32
sequences_per_step = 8
learning_rate = 3e-3
[slurm]
extra = {{hold = true}}
[[grid]]
model = "1x16"
repeats = [1, 4]
repeated_fraction = 0.5
seed = {seeds}
"""


def command(*arguments: str) -> tuple[float, str]:
    """Run a command. Returns the elapsed seconds and the output."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "repeat_study_cli", *arguments], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - start, done.stdout


def measure(count: int) -> tuple[float, float]:
    """Seconds to submit `count` runs, and median seconds to print their status."""
    name = f"runs{count}"
    path = Path("studies") / f"{name}.toml"
    path.write_text(STUDY.format(library=Path(os.__file__).parent, seeds=list(range(count // 2))))
    study = load_study(path)
    store = prepare(study.data, Path("data"))
    runs = study.runs(StudyTexts(store.fingerprint))
    train(runs[0], store, Path("one"))
    submitting, output = command("sweep", name)
    assert f"{count} runs to submit" in output, output
    for number, run in enumerate(runs):
        shutil.copytree(Path("one") / runs[0].name, Path("runs") / name / run.name)
        if number % 2:
            (Path("runs") / name / run.name / "done.json").unlink()
    rounds = [command("status", name) for _ in range(ROUNDS)]
    assert all(f"{count // 2} done, {count // 2} pending" in output for _, output in rounds), rounds[0][1][-200:]
    command("cancel", name, "--all")
    return submitting, statistics.median(elapsed for elapsed, _ in rounds)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="status-"))
    os.chdir(folder)
    Path("studies").mkdir()
    cluster = DevCluster(folder / "c")
    cluster.start()
    os.environ |= cluster.environment
    try:
        seconds = {count: measure(count) for count in (10, 1000)}
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("runs   sweep, s   status, s")
    for count, (submitting, showing) in seconds.items():
        print(f"{count:4}   {submitting:8.2f}   {showing:9.2f}")
    names = ("sweep of 1000 runs over 10", "status of 1000 runs over 10")
    ratios = {name: round(seconds[1000][index] / seconds[10][index], 2) for index, name in enumerate(names)}
    print(json.dumps({"ratios": ratios}))


if __name__ == "__main__":
    main()
