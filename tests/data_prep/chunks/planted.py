"""One corpus in four kinds of sources, with planted duplicates, empty rows and blank lines."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("python", "jsonl", "parquet", "dataset")
MAX_TOKENS = 40_001  # reached in the middle of a chunk


def texts() -> list[str]:
    """About 107,000 characters in 400 rows, of which 60 are copies of other rows and 5 are empty."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(300)]
    rows = [" ".join(rng.choices(words, k=rng.randint(5, 75))) for _ in range(335)]
    for copy in rng.choices(rows, k=60):
        rows.insert(rng.randrange(len(rows)), copy)
    for _ in range(5):
        rows.insert(rng.randrange(len(rows)), " \n")
    return rows


def write(folder: Path, kind: str) -> dict[str, Any]:
    """Write the corpus, and return `data.source` for it."""
    rows, half = texts(), 200
    root = folder / kind
    if kind == "dataset":
        import datasets

        datasets.Dataset.from_dict({"text": rows}).save_to_disk(str(root))
        return {"kind": "huggingface", "dataset": str(root)}
    root.mkdir()
    if kind == "python":
        for number, row in enumerate(rows):
            (root / f"{number:03}.py").write_text(f'"""{row}"""\n' if row.strip() else row)
    elif kind == "parquet":
        for name, piece in (("a", rows[:half]), ("b", rows[half:])):
            pq.write_table(
                pa.table({"text": piece, "number": range(len(piece))}), root / f"{name}.parquet", row_group_size=7
            )
    else:
        lines = [json.dumps({"text": row}) + "\n" * (1 + (number % 9 == 0)) for number, row in enumerate(rows)]
        with pa.output_stream(str(root / "a.jsonl.zst"), "zstd") as stream:
            stream.write("".join(lines[:half]).encode())
        (root / "b.jsonl").write_text("".join(lines[half:]))
    return {"kind": "files", "paths": [str(root)]}


def fields(folder: Path, kind: str) -> dict[str, Any]:
    """A data spec. With 257 tokens, the tokenizer has no merges, so the tokens do not depend on the version of its trainer."""
    return {"source": write(folder, kind), "vocabulary": 257, "max_tokens": MAX_TOKENS, "test_fraction": 0.2}
