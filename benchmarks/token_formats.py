"""Read tokenized data that was written by other libraries, and compare building a store from it with copying its bytes.

    python benchmarks/token_formats.py --python megatron-core=/envs/a/bin/python --python litdata=/envs/b/bin/python
    python benchmarks/token_formats.py --gigabytes 2 --mean-tokens 1000

First, each library writes the same documents, and the store built from its files is compared with the store built from the text: every
token, every document and the fingerprint. `--python` names the interpreter for a library; the default is the running one. Libraries that
are not installed are listed. With `--gigabytes`, the script then builds a store from a file of uint16 tokens in a new process, and
copies the same file with `cp` before and after. Prints one JSON line of ratios.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from token_format_writers import WRITERS

from data_prep.data_spec import DataSpec
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore

PACKAGES = ("email", "json", "asyncio", "xml", "http", "unittest", "importlib")
MODULES = {"megatron-core": "megatron", "mosaicml-streaming": "streaming"}
# Keys of the source for each variant, in addition to its format, which is the first word of its name.
FIELDS: dict[str, dict[str, Any]] = {
    "olmo": {"dtype": "uint32"},
    "litdata fields": {"tokens_field": "input_ids"},
    "mds packed bytes": {"dtype": "int64"},
}
END = 50256


def formats(folder: Path, pythons: dict[str, str]) -> dict[str, bool]:
    """Compare the store built from each variant with the store built from the text. Returns whether they are equal, by variant."""
    library = Path(os.__file__).parent
    fields = {"source": {"kind": "files", "paths": [str(library / name) for name in PACKAGES]}, "max_tokens": 10**9}
    tokenizer = prepare(DataSpec.model_validate(fields), folder).folder / "tokenizer.json"
    fields |= {"tokenizer": str(tokenizer), "test_fraction": 1.0}
    store = prepare(DataSpec.model_validate(fields), folder)
    documents = folder / "documents.jsonl"
    with documents.open("w") as file:
        for start, end in pairwise(store.offsets("test").tolist()):
            ids = store.test[start : end - 1].tolist()
            file.write(json.dumps({"text": store.tokenizer().decode(ids), "ids": ids}) + "\n")
    print(f"{len(store.offsets('test')) - 1:,} documents, {store.test.size:,} tokens\n")
    print(f"{'format':24}{'written by':30}{'store from the text'}")
    equal = {}
    for number, (variant, (peer, _)) in enumerate(WRITERS.items()):
        python = pythons.get(peer, sys.executable)
        if python == sys.executable and peer and importlib.util.find_spec(MODULES.get(peer, peer)) is None:
            print(f"{variant:24}{peer + ', not installed':30}-")
            continue
        corpus = folder / f"corpus-{number}"
        corpus.mkdir()
        arguments = [variant, documents, tokenizer, store.end_of_text, corpus]
        writer = Path(__file__).with_name("token_format_writers.py")
        done = subprocess.run([python, writer, *map(str, arguments)], capture_output=True, text=True, cwd=folder)
        if done.returncode:
            print(f"{variant:24}{peer:30}failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        source = {
            "kind": "tokens",
            "format": variant.split()[0],
            "paths": [str(corpus)],
            "end_of_text": store.end_of_text,
        }
        read = prepare(DataSpec.model_validate(fields | {"source": source | FIELDS.get(variant, {})}), folder)
        equal[variant] = same(read, store)
        notes = "; ".join(read.manifest["corpus"]["notes"])
        version = done.stdout.strip().splitlines()[-1]
        print(f"{variant:24}{f'{peer} {version}'.strip():30}{'equal' if equal[variant] else 'DIFFERENT'}  {notes}")
    return equal


def same(first: TokenStore, second: TokenStore) -> bool:
    """Whether two stores have the same tokens, documents and tokenizer."""
    tokens = np.array_equal(first.test, second.test)
    return (
        tokens
        and np.array_equal(first.offsets("test"), second.offsets("test"))
        and first.fingerprint == second.fingerprint
    )


def speed(folder: Path, gigabytes: float, mean_tokens: int, rounds: int) -> dict[str, float]:
    """Compare building a store with copying the file. mean_tokens: mean length of a document.

    Returns the medians of the ratios, and the peak memory of a build in MB.
    """
    path = folder / "train.bin"
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        while file.tell() < gigabytes * 1e9:
            tokens = rng.integers(0, END, 4_000_000).astype(np.uint16)
            tokens[np.cumsum(rng.integers(1, 2 * mean_tokens, len(tokens) // mean_tokens)) % len(tokens)] = END
            file.write(tokens.tobytes())
    subprocess.run(["sync"], check=True)
    measured: dict[str, list[float]] = {"copy": [], "copy to disk": [], "build": [], "memory": []}
    for number in range(rounds):
        start = time.perf_counter()
        subprocess.run(["cp", path, folder / "copy"], check=True)
        copied = time.perf_counter()
        subprocess.run(["sync", folder / "copy"], check=True)
        measured["copy"].append(copied - start)
        measured["copy to disk"].append(time.perf_counter() - start)
        (folder / "copy").unlink()
        command = [sys.executable, __file__, "--build", path, "--folder", folder / f"data-{number}"]
        built = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        measured["build"].append(built["seconds"])
        measured["memory"].append(built["megabytes"])
        print(
            f"{path.stat().st_size / 1e9:.2f} GB, {built['documents']:,} documents: copy {measured['copy'][-1]:.2f} s,"
            f" copy to disk {measured['copy to disk'][-1]:.2f} s, build {built['seconds']:.2f} s"
            f" ({built['cpu']:.2f} s of CPU), peak memory {built['megabytes']:.0f} MB"
        )
    ratios = {
        f"build / {name}": statistics.median(np.divide(measured["build"], measured[name]).tolist())
        for name in ("copy", "copy to disk")
    }
    return ratios | {"megabytes": max(measured["memory"])}


def build(path: Path, folder: Path) -> None:
    """Build a store from one file, and print the time and the peak memory."""
    source = {"kind": "tokens", "format": "nanogpt", "paths": [str(path)], "end_of_text": END}
    spec = DataSpec.model_validate({"source": source, "vocabulary": 50257, "max_tokens": 10**12})
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, which includes the parent process
    start, cpu = time.perf_counter(), time.process_time()
    store = prepare(spec, folder)
    result = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "megabytes": peak_memory(),
        "documents": store.manifest["corpus"]["read"],
    }
    for file in store.folder.iterdir():
        file.unlink()
    print(json.dumps(result))


def peak_memory() -> float:
    """Peak resident memory of this process in MB. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="LIBRARY=PATH",
        help="interpreter of an environment with this library",
    )
    parser.add_argument("--gigabytes", type=float, default=0.0, help="size of the file that is built and copied")
    parser.add_argument(
        "--mean-tokens",
        type=int,
        default=1000,
        help="tokens per document of this file; the default is typical of web text",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build, options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        equal = formats(Path(name), dict(given.split("=", 1) for given in options.python))
        ratios: dict[str, float] = {}
        if options.gigabytes:
            print()
            ratios = speed(Path(name), options.gigabytes, options.mean_tokens, options.rounds)
    print(json.dumps({"ratios": ratios, "equal": equal}))
    if not all(equal.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
