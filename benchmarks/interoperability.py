"""Export trained models, load them with other libraries, and compare logits, attention patterns and log-likelihoods with ours.

    python benchmarks/interoperability.py [RUN_DIR ...] [--data-dir data] [--environments DIR]

Without runs, trains a small run of each model family first. Each library has a virtual environment of its own, DIR/NAME. Missing
environments are made with pip, which takes a few minutes; by default, they are made in a temporary folder. Prints a table and one line
of JSON. Exits with code 1 if a library fails or a difference exceeds the limit: 1e-5, or twice the rounding error of our own model,
which is the largest difference between its logits in float32 and in float64.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.prepare import prepare
from repeat_study.config.run import EvaluationSpec, Run
from repeat_study.export.exported_folder import export
from repeat_study.model.decoder import Decoder
from repeat_study.probes.checkpoint_probe import TrainedModel, load_trained
from repeat_study.probes.heads import attention_patterns
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train

LIMIT = 1e-5  # largest accepted absolute difference, unless the rounding error is larger
ROOT = Path(__file__).resolve().parents[1]
READERS = Path(__file__).with_name("interoperability_readers.py")
MODELS = ("2x64", "2x64-attn", "2x64-qwen")
SEQUENCES = 8
# For each environment: the library, and what is installed in addition to torch
ENVIRONMENTS = {
    "transformers": ("transformers", ["transformers"]),
    "transformer-lens-3": ("transformer-lens", ["transformer-lens<4"]),
    "transformer-lens-4": ("transformer-lens", ["transformer-lens>=4"]),
    "nnsight": ("nnsight", ["nnsight", "transformers"]),
    "lm-eval": ("lm-eval", ["lm-eval[hf]"]),
}


def trained_runs(folder: Path) -> list[Path]:
    """Train one small run per model family on the standard library. Returns their directories."""
    data = DataSpec.model_validate({"source": "installed-python", "vocabulary": 512, "max_tokens": 1_000_000})
    store = prepare(data, folder / "data")
    directories = []
    for model in MODELS:
        run = Run(
            model=model,
            repeats=8,
            repeated_fraction=0.5,
            tokens=200 * 16 * 64,
            context=64,
            sequences_per_step=16,
            learning_rate=3e-3,
            evaluation=EvaluationSpec(even_points=1, log_points=0),
            corpus=store.fingerprint,
        )
        train(run, store, folder / "runs")
        directories.append(folder / "runs" / run.name)
    return directories


def python_of(environment: Path, packages: list[str]) -> Path:
    """The environment's interpreter. Makes the environment if it does not exist."""
    python = environment / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        torch_version = torch.__version__.partition("+")[0]
        for wanted in ([f"torch=={torch_version}"], packages):
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
            subprocess.run(pip, check=True, stdout=sys.stderr)
    return python


def versions(python: Path, library: str) -> dict[str, str]:
    """The versions of a library, of transformers and of torch in an environment."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    names = dict.fromkeys([library, "transformers", "torch"])
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@torch.no_grad()
def rounding_error(model: Decoder, tokens: Tensor) -> float:
    """Largest difference between logits computed in float32 and in float64."""
    exact = copy.deepcopy(model).double()
    return float((model(tokens[None]) - exact(tokens[None])).abs().max())


def test_tokens(trained: TrainedModel) -> Tensor:
    """The first tokens of the test split, int64, [sequences, context]."""
    context = trained.run.context
    sequences = min(SEQUENCES, len(trained.store.test) // context)
    return torch.from_numpy(trained.store.test[: sequences * context].astype("int64")).view(sequences, context)


@torch.no_grad()
def write_reference(trained: TrainedModel, path: Path) -> None:
    """Write what our own model computes. The content is described in interoperability_readers.py."""
    model, tokens = trained.model, test_tokens(trained)
    patterns: dict[int, Tensor] = {}

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, ablate: bool) -> Tensor:
        patterns[layer] = attention_patterns(query, key)
        outputs = patterns[layer] @ value
        if ablate and layer == model.shape.layers - 1:
            outputs[:, 0] = 0
        return outputs

    ablated = model.unembedding(model.residual(tokens[None], partial(attend, ablate=True)))[0]
    tensors = {
        "tokens": tokens,
        "logits": model(tokens[None])[0],
        "patterns": torch.stack([patterns[layer] for layer in range(model.shape.layers)]),
        "ablated": ablated,
    }
    save_file(tensors, path, {"texts": json.dumps(texts(trained))})


def texts(trained: TrainedModel) -> list[dict[str, Any]]:
    """Texts from the test split with the log-likelihood of their continuation; empty if there is no tokenizer."""
    if not trained.store.has_tokenizer:
        return []
    tokenizer, results = trained.store.tokenizer(), []
    text = tokenizer.decode(trained.store.test[1 : trained.run.context // 2].tolist())
    # lm-eval counts white space at the end of a context as the beginning of the continuation.
    for split in (0, len(text[: len(text) // 2].rstrip())):
        # Without a context, lm-eval predicts the text after the end-of-text token.
        before = tokenizer.encode(text[:split]).ids or [trained.store.end_of_text]
        ids = tokenizer.encode(text).ids if split else before + tokenizer.encode(text).ids
        results.append(
            {
                "context": text[:split],
                "continuation": text[split:],
                "tokens": len(ids) - len(before),
                "log_likelihood": log_likelihood(trained.model, ids, len(before)),
            }
        )
    return results


def log_likelihood(model: Decoder, ids: list[int], known: int) -> float:
    """Sum of the log-probabilities in nats of all tokens after the first `known` ones."""
    losses_lbt = model.token_losses(torch.tensor(ids)[None, None])
    return -float(losses_lbt[0, 0, known - 1 :].double().sum())


@dataclass(frozen=True)
class Exported:
    """An exported model, the file with the values of our own model, and the largest accepted difference."""

    folder: Path
    reference: Path
    limit: float


def compared(name: str, environments: Path, exported: dict[str, Exported], cache: Path) -> dict[str, float | None]:
    """Print a library's versions and differences. Returns the largest difference by run, None if the library failed."""
    library, packages = ENVIRONMENTS[name]
    python = python_of(environments / name, packages)
    print(", ".join(f"{package} {version}" for package, version in versions(python, library).items()), flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    results: dict[str, float | None] = {}
    for run, model in exported.items():
        command = [python, READERS, library, model.folder, model.reference]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
        if done.returncode:
            print(f"  {run:32} FAILED: {done.stderr.strip().splitlines()[-1]}")
            results[run] = None
            continue
        differences = json.loads(done.stdout.strip().splitlines()[-1])
        results[run] = worst = max(differences.values())
        listed = ", ".join(f"{quantity} {difference:.1e}" for quantity, difference in differences.items())
        print(f"  {run:32} {'pass' if worst <= model.limit else 'FAIL'}: {listed}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN_DIR", help="directories of trained runs")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of their token stores")
    parser.add_argument("--environments", type=Path, metavar="DIR", help="folder of the virtual environments")
    parser.add_argument("--only", choices=ENVIRONMENTS, action="append", help="compare only with this library")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        runs, data_dir = (options.runs, options.data_dir) if options.runs else (trained_runs(work), work / "data")
        exported: dict[str, Exported] = {}
        try:
            for run in runs:
                trained = load_trained(run, data_dir)
                reference = work / f"{trained.run.name}.safetensors"
                write_reference(trained, reference)
                folder = export(trained, RunDirectory(run), work / "exported" / trained.run.name)
                limit = max(LIMIT, 2 * rounding_error(trained.model, test_tokens(trained)))
                exported[trained.run.name] = Exported(folder, reference, limit)
        except InputError as error:
            print(f"interoperability: {error}", file=sys.stderr)
            sys.exit(2)
        print("largest absolute differences from our own model; allowed:")
        for run_name, model in exported.items():
            print(f"  {run_name:32} {model.limit:.2g}")
        results = {
            environment: compared(environment, options.environments or work, exported, work / "cache")
            for environment in options.only or ENVIRONMENTS
        }
    print(json.dumps({"ratios": {}, "differences": results}))
    for by_run in results.values():
        if any(difference is None or difference > exported[run].limit for run, difference in by_run.items()):
            sys.exit(1)


if __name__ == "__main__":
    main()
