"""Write documents in a format of tokenized data, using the library that defines the format.

    python token_format_writers.py VARIANT DOCUMENTS.jsonl TOKENIZER.json END_OF_TEXT FOLDER

This runs in an environment that contains the library, not this project. Each line of DOCUMENTS.jsonl has the keys `text` and `ids`.
Prints the library's version. See token_formats.py, which calls it.
"""

import importlib.metadata
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

ROW = 257  # tokens per packed row


def main() -> None:
    variant, documents, tokenizer, end_of_text, folder = sys.argv[1:]
    rows = [json.loads(line) for line in Path(documents).open()]
    library, write = WRITERS[variant]
    write(rows, tokenizer, int(end_of_text), Path(folder))
    print(importlib.metadata.version(library) if library else "no library")


def stream(rows: list[dict], end_of_text: int, before: bool = False) -> np.ndarray:
    ends = [end_of_text]
    return np.array([token for row in rows for token in (ends + row["ids"] if before else row["ids"] + ends)])


def packed(rows: list[dict], end_of_text: int) -> list[np.ndarray]:
    tokens = stream(rows, end_of_text)
    return [tokens[start : start + ROW] for start in range(0, len(tokens), ROW)]


def megatron(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """Like tools/preprocess_data.py, with one sequence per document."""
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(folder / "corpus.bin"), dtype=DType.optimal_dtype(50_000))
    for row in rows:
        builder.add_document(torch.tensor(row["ids"]), [len(row["ids"])])
    builder.finalize(str(folder / "corpus.idx"))


def megatron_append_eod(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(folder / "corpus.bin"), dtype=np.int32)
    for row in rows:
        ids = row["ids"] + [end_of_text]
        builder.add_document(torch.tensor(ids), [len(ids) // 2, len(ids) - len(ids) // 2])
    builder.finalize(str(folder / "corpus.idx"))


def datatrove(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """The complete pipeline: datatrove tokenizes the text itself."""
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer
    from tokenizers import Tokenizer

    step = DocumentTokenizer(
        str(folder),
        local_working_dir=None,
        tokenizer_name_or_path=tokenizer,
        eos_token=Tokenizer.from_file(tokenizer).id_to_token(end_of_text),
        shuffle_documents=False,
    )
    step.run(Document(text=row["text"], id=str(number)) for number, row in enumerate(rows))


def litdata_tokens(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """As in litData's and LitGPT's examples: one tensor per document for TokensLoader."""
    import torch
    from litdata import TokensLoader

    items = [torch.tensor(row["ids"] + [end_of_text], dtype=torch.int32) for row in rows]
    _optimize(items, folder, chunk_bytes="200KB", item_loader=TokensLoader())


def litdata_numpy(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    _optimize([np.array(row["ids"], np.uint16) for row in rows], folder, chunk_size=100)


def litdata_fields(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    items = [
        {"labels": np.arange(3), "input_ids": np.array(row["ids"], np.int64), "text": row["text"][:9]} for row in rows
    ]
    _optimize(items, folder, chunk_bytes="400KB")


def litdata_compressed(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    _optimize([np.array(row["ids"], np.uint16) for row in rows], folder, chunk_size=100, compression="zstd")


def litdata_compressed_chunks(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    items = [np.array(row["ids"], np.uint16) for row in rows]
    _optimize(items, folder, chunk_size=100, compression="zstd", compression_level="chunk")


def _optimize(items: list, folder: Path, **options: object) -> None:
    from litdata import optimize

    optimize(partial(_item, items), list(range(len(items))), str(folder), num_workers=1, **options)


def _item(items: list, number: int) -> object:
    return items[number]


def mds(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """One row per document, in shards of 100 KB."""
    samples = [
        {"name": f"document {number}", "tokens": np.array(row["ids"], np.uint16)} for number, row in enumerate(rows)
    ]
    _mds(folder, {"name": "str", "tokens": "ndarray:uint16"}, samples)


def mds_untyped(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    _mds(folder, {"tokens": "ndarray"}, [{"tokens": np.array(row["ids"], np.int32)} for row in rows])


def mds_packed_bytes(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """As in llm-foundry's ConcatTokensDataset, without dropping the last row."""
    samples = [{"tokens": row.astype(np.int64).tobytes()} for row in packed(rows, end_of_text)]
    _mds(folder, {"tokens": "bytes"}, samples)


def mds_compressed(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    samples = [{"tokens": row.astype(np.uint32)} for row in packed(rows, end_of_text)]
    _mds(folder, {"tokens": "ndarray:uint32"}, samples, compression="zstd:7")


def _mds(folder: Path, columns: dict, samples: list[dict], **options: object) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns=columns, size_limit=100_000, exist_ok=True, **options) as writer:
        for sample in samples:
            writer.write(sample)


def datasets_rows(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """Tokenized with `map`, one row per document."""
    from datasets import Dataset
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(tokenizer)
    encoder.encode_special_tokens = True
    texts = Dataset.from_dict({"text": [row["text"] for row in rows]})
    texts.map(
        lambda row: {"input_ids": encoder.encode(row["text"], add_special_tokens=False).ids}, remove_columns=["text"]
    ).save_to_disk(str(folder))


def datasets_packed(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """As in run_clm.py's group_texts, with end-of-text tokens and without dropping the last row."""
    from datasets import Dataset

    Dataset.from_dict({"input_ids": packed(rows, end_of_text)}).save_to_disk(str(folder))


def nanogpt(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """As in data/openwebtext/prepare.py."""
    stream(rows, end_of_text).astype(np.uint16).tofile(folder / "train.bin")


def llm_c(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """As in dev/data/data_common.py, in shards; documents continue in the next shard."""
    for number, part in enumerate(np.array_split(stream(rows, end_of_text, before=True), 5)):
        header = np.zeros(256, np.int32)
        header[:3] = 20240520, 1, len(part)
        with (folder / f"train_{number:06d}.bin").open("wb") as file:
            file.write(header.tobytes())
            file.write(part.astype(np.uint16).tobytes())


def olmo(rows: list[dict], tokenizer: str, end_of_text: int, folder: Path) -> None:
    """A memory map, as dolma writes it."""
    tokens = stream(rows, end_of_text)
    file = np.memmap(folder / "part-0-00000.npy", np.uint32, "w+", shape=(len(tokens),))
    file[:] = tokens
    file.flush()


WRITERS: dict[str, tuple[str, Callable[[list[dict], str, int, Path], None]]] = {
    "megatron": ("megatron-core", megatron),
    "megatron --append-eod": ("megatron-core", megatron_append_eod),
    "datatrove": ("datatrove", datatrove),
    "litdata TokensLoader": ("litdata", litdata_tokens),
    "litdata numpy": ("litdata", litdata_numpy),
    "litdata fields": ("litdata", litdata_fields),
    "litdata zstd": ("litdata", litdata_compressed),
    "litdata zstd chunks": ("litdata", litdata_compressed_chunks),
    "mds": ("mosaicml-streaming", mds),
    "mds untyped": ("mosaicml-streaming", mds_untyped),
    "mds packed bytes": ("mosaicml-streaming", mds_packed_bytes),
    "mds packed zstd": ("mosaicml-streaming", mds_compressed),
    "datasets": ("datasets", datasets_rows),
    "datasets packed": ("datasets", datasets_packed),
    "nanogpt": ("", nanogpt),
    "llm.c": ("", llm_c),
    "olmo": ("", olmo),
}

if __name__ == "__main__":
    main()
