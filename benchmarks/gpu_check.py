"""Run everything that has to be measured on a GPU, within a time limit: tests, lanes, training speed, and a study.

    python -m benchmarks.gpu_check --minutes 8 --out gpu_check [--device cpu] [--nanogpt FOLDER] [--corpus FILE] [--parts NAME ...]

The parts run in order of importance. Each one is a process of its own with a time limit, so a part that fails or hangs does not
affect the others. results.json and results.md in the output folder are replaced after every part. Both also keep what a part had
measured before it was stopped. With `--parts`, only those parts run, and the results of the others are kept. For example, after a
check whose other parts took all the time, `--parts study report` continues the study where it was stopped. With `--device cpu`,
every part runs on a small scale, as a rehearsal.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_prep.files import write_atomically

REPOSITORY = Path(__file__).resolve().parents[1]
GRACE = 10.0  # seconds from SIGTERM to SIGKILL; a study saves its runs in this time
MIN_SECONDS = 5.0  # a part with less time than this is not started
MATMUL, COPY = 8192, 2**30  # size of the multiplied square matrices, and number of bytes copied
# Goals for lanes and training on a GPU with 80 GB.
GOALS = (
    ("runs per hour at 2x32: lanes relative to one run at a time", "lanes 2x32", "lanes", 8.0),
    ("runs per hour at 1.57M (2L): lanes relative to one run at a time", "lanes 2L", "lanes", 4.0),
    ("tokens/s at 101M (8L): relative to nanoGPT", "training", "8L ours / nanoGPT", 1.2),
    ("share of peak FLOP/s at 101M (8L)", "training", "8L utilisation", 0.45),
)


@dataclass(frozen=True)
class Part:
    """A command with a time limit. Its result is the last line of its output that is a JSON object."""

    name: str
    command: Sequence[str]
    limit: float  # seconds
    environment: Mapping[str, str] = field(default_factory=dict)
    skipped: str = ""  # why it cannot run on this machine
    reserved: float = 0.0  # seconds that earlier parts must leave for it


@dataclass
class Outcome:
    """How a part ended: "ok", "failed (exit status 1)", "stopped at its limit", or "skipped: " with the reason."""

    name: str
    state: str
    seconds: float = 0.0
    limit: float = 0.0
    command: str = ""
    result: dict[str, Any] = field(default_factory=dict)


def run_part(part: Part, seconds: float, log: Path) -> Outcome:
    """Run one part for at most `seconds`. Its output goes to the file `log`. None of its processes outlives this call."""
    if part.skipped:
        return Outcome(part.name, f"skipped: {part.skipped}")
    start = time.monotonic()
    # The package need not be installed: a machine without network may have only the repository and the libraries.
    search_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    with log.open("wb") as output:
        process = subprocess.Popen(
            part.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": search_path, **part.environment},
            start_new_session=True,  # so that its child processes can be stopped with it
        )
        try:
            status = process.wait(max(seconds - GRACE, seconds / 2))
            state = "ok" if status == 0 else f"failed (exit status {status})"
        except subprocess.TimeoutExpired:
            state = "stopped at its limit"
            _signal_group(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(GRACE, seconds / 2))
        finally:
            _signal_group(process, signal.SIGKILL)
            process.wait()
    took = time.monotonic() - start
    return Outcome(part.name, state, took, seconds, " ".join(part.command), last_json(log))


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def last_json(log: Path) -> dict[str, Any]:
    """The last line of a log that is a JSON object; empty if there is none."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith("{"):
            with suppress(ValueError):
                return dict(json.loads(line))
    return {}


def run_parts(parts: Sequence[Part], minutes: float, out: Path, earlier: Sequence[Outcome] = ()) -> list[Outcome]:
    """Run all parts that fit within the time limit, and write the results after each one.

    Results in `earlier` of parts that are not run now remain in the files.
    """
    deadline = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    names = {part.name for part in parts}
    outcomes = [outcome for outcome in earlier if outcome.name not in names]
    for number, part in enumerate(parts):
        reserved = sum(later.reserved for later in parts[number + 1 :] if not later.skipped)
        seconds = min(part.limit, deadline - time.monotonic() - reserved)
        if seconds < MIN_SECONDS and not part.skipped:
            outcomes.append(Outcome(part.name, "skipped: no time left"))
        else:
            if not part.skipped:
                print(f"{part.name}: up to {seconds:.0f} s", flush=True)
            outcomes.append(run_part(part, seconds, out / f"{part.name.replace(' ', '-')}.log"))
            print(f"{part.name}: {outcomes[-1].state}, {outcomes[-1].seconds:.0f} s", flush=True)
        record = {"minutes": minutes, "parts": [asdict(outcome) for outcome in outcomes]}
        write_atomically(out / "results.json", json.dumps(record, indent=1).encode())
        write_atomically(out / "results.md", as_markdown(outcomes).encode())
    return outcomes


def earlier_outcomes(out: Path) -> list[Outcome]:
    """The outcomes in results.json; none if there is no such file. A damaged file is renamed to results.json.damaged."""
    path = out / "results.json"
    if not path.exists():
        return []
    try:
        outcomes = [Outcome(**outcome) for outcome in json.loads(path.read_text())["parts"]]
        as_markdown(outcomes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        path.replace(path.with_name("results.json.damaged"))
        print(f"{path}: {error!r}; renamed to results.json.damaged", file=sys.stderr)
        return []
    return outcomes


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """Describe the machine, and make tables of the parts, the lanes, the training ratios and the goals."""
    by_name = {outcome.name: outcome.result for outcome in outcomes}
    lines = [f"- {key}: {value}" for key, value in by_name.get("machine", {}).items()]
    lines += ["", "| part | state | seconds |", "|---|---|---|"]
    lines += [f"| {outcome.name} | {outcome.state} | {outcome.seconds:.0f} |" for outcome in outcomes]
    if rows := [(outcome.name, row) for outcome in outcomes for row in outcome.result.get("rows", ())]:
        lines += ["", "| part | model | how | tokens/s | runs/hour | over one lane | of peak | MB per lane |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
    for part, row in rows:
        peak = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
        memory = "" if row["bytes_per_lane"] is None else f"{row['bytes_per_lane'] / 1e6:,.1f}"
        numbers = (f"{row['tokens_per_second']:,}", f"{row['runs_per_hour']:,.0f}", f"{row['over_one_lane']:.2f}")
        lines.append("| " + " | ".join([part, row["model"], row["how"], *numbers, peak, memory]) + " |")
    failures = [(outcome.name, what) for outcome in outcomes for what in outcome.result.get("failures", ())]
    lines += ["", *(f"- {name} failed: {what}" for name, what in failures)] if failures else []
    if ratios := by_name.get("training", {}).get("ratios"):
        lines += ["", "| training | |", "|---|---|", *(f"| {key} | {value:.3f} |" for key, value in ratios.items())]
    lines += ["", "| goal | at least | measured | |", "|---|---|---|---|"]
    for title, part, key, least in GOALS:
        value = _measured(by_name.get(part, {}), key)
        cells = ("not measured", "") if value is None else (f"{value:.2f}", "reached" if value >= least else "missed")
        lines.append(f"| {title} | {least:g} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _measured(result: Mapping[str, Any], key: str) -> float | None:
    if key != "lanes":
        value = result.get("ratios", {}).get(key)
        return None if value is None else float(value)
    if result.get("device") == "cpu":  # the goals are for a GPU
        return None
    lanes = [row for row in result.get("rows", ()) if row["how"].endswith(" lanes") and row["how"] != "1 lanes"]
    return max((float(row["over_one_lane"]) for row in lanes), default=None)


def describe_machine(device: str) -> None:
    """Print a JSON object with library versions and, for a GPU, its name and measured speed of matrix products and copies."""
    import lightning
    import torch

    machine: dict[str, Any] = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "cores": os.cpu_count(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        machine |= {
            "gpu": properties.name,
            "memory": f"{properties.total_memory / 2**30:.1f} GiB",
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
        matrix = torch.randn(MATMUL, MATMUL, device=device, dtype=torch.bfloat16)
        seconds = _seconds(lambda: matrix @ matrix)
        machine["bfloat16 matrix product"] = f"{2 * MATMUL**3 / seconds / 1e12:.0f} TFLOP/s"
        source, target = (torch.empty(COPY, dtype=torch.uint8, device=device) for _ in range(2))
        machine["copy"] = f"{2 * COPY / _seconds(lambda: target.copy_(source)) / 1e12:.2f} TB/s"
    print(json.dumps(machine))


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return "unknown"


def _seconds(operation: Any, repeats: int = 20) -> float:
    import torch

    operation()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        operation()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def parts_of(device: str, out: Path, nanogpt: Path | None, corpus: Path | None) -> list[Part]:
    """All parts in order of importance, with the study and its report last because the study can use any time that is left."""
    python, cuda = sys.executable, device == "cuda"
    data = ["--data-dir", str(out / "data")]
    lanes = [python, "-m", "benchmarks.bundles", "--device", device, *data, "--models"]
    tests = [python, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", "--timeout", "90", "tests/gpu"]
    tests += [] if cuda else ["-k", "recipes"]
    tests += ["-n", "4", "--dist", "loadfile"] if cuda and find_spec("xdist") else []
    describe = [python, "-m", "benchmarks.gpu_check", "--describe", device]
    speed = [python, "-m", "benchmarks.training", "--device", device, "--rounds", "2" if cuda else "1"]
    speed += [*data, "--shapes", "8L" if cuda else "2x32", *(["--nanogpt", str(nanogpt)] if nanogpt else [])]
    parts = [
        Part("machine", describe, 60),
        Part("tests", tests, 120 if cuda else 40, {"REPEAT_STUDY_GPU_TESTS": device}),
    ]
    if cuda:
        many = ["--lanes", "1", "64", "16", "--cuda-graphs", "1", "64", "--processes", "8"]
        parts += [
            Part("lanes 2x32", [*lanes, "2x32", *many], 75),
            Part("training", speed, 120),
            *(Part(f"lanes {model}", [*lanes, model, *many], 75) for model in ("2L", "4L", "3L")),
        ]
    else:
        parts.append(Part("lanes 2x32", [*lanes, "2x32", "--lanes", "1", "2", "--processes", "2"], 60))
        parts.append(Part("training", speed, 90))
    parts.append(mps_part([*lanes, "2x32", "--lanes", "1", "--processes", "8"]))
    skipped = "" if corpus or not cuda else "no text; pass --corpus FILE"
    study = ["gpu_minutes", "--runs-dir", str(out / "runs"), *study_settings(device, corpus)]
    command = [python, "-m", "repeat_study_cli"]
    parts.append(
        Part(
            "study",
            [*command, "run", *study, *data, "--lanes", "auto"],
            600 if cuda else 60,
            skipped=skipped,
            reserved=60 if cuda else 25,
        )
    )
    parts.append(Part("report", [*command, "report", *study], 60, skipped=skipped, reserved=30 if cuda else 12))
    return parts


def study_settings(device: str, corpus: Path | None) -> list[str]:
    """Options of the commands for the study gpu_minutes: its text, and, on a CPU, runs of a few seconds."""
    settings = [f"resources.accelerator={device}"]
    if corpus:
        settings.append(f"data.source.paths={json.dumps([str(corpus)])}")
    if device == "cpu":
        settings += ["data.vocabulary=512", "data.max_tokens=1_000_000", "training.tokens=153_600"]
        settings += [] if corpus else ['data.source="installed-python"']
        settings += ["grid.0.model=2x16", "grid.1.model=2x16"]
        settings += ["grid.0.seed=0", "grid.1.seed=0", "grid.1.repeats=3"]
    return [word for setting in settings for word in ("--set", setting)]


def mps_part(command: Sequence[str]) -> Part:
    """A part that runs `command` with NVIDIA's multi-process service (MPS), skipped if MPS is not installed."""
    daemon = shutil.which("nvidia-cuda-mps-control")
    script = f"{daemon} -d; {' '.join(command)}; status=$?; echo quit | {daemon}; exit $status"
    return Part(
        "processes with MPS", ["bash", "-c", script], 60, skipped="" if daemon else "no nvidia-cuda-mps-control"
    )


def main() -> None:
    """Parse the command line and run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT, to compare training speed with")
    parser.add_argument("--corpus", type=Path, help="text for the study, such as a .jsonl.zst file")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="only these parts, such as: --parts study report")
    parser.add_argument("--describe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.describe:
        describe_machine(options.describe)
        return
    if options.corpus and not options.corpus.exists():
        parser.error(f"--corpus: {options.corpus} does not exist")
    if options.nanogpt and not (options.nanogpt / "train.py").is_file():
        parser.error(f"--nanogpt: no train.py in {options.nanogpt}; expected a checkout of nanoGPT")
    out, nanogpt, corpus = (path and path.resolve() for path in (options.out, options.nanogpt, options.corpus))
    parts = parts_of(options.device, out, nanogpt, corpus)
    names = [part.name for part in parts]
    if unknown := [name for name in options.parts or () if name not in names]:
        parser.error(f"--parts: there is no part {unknown[0]!r}; the parts are {', '.join(map(repr, names))}")
    chosen = [part for part in parts if part.name in (options.parts or names)]
    outcomes = run_parts(chosen, options.minutes, out, earlier_outcomes(out) if options.parts else [])
    print(as_markdown(outcomes))
    print(f"results: {out / 'results.md'}")


if __name__ == "__main__":
    main()
