"""`repeat-study inspect`: show what a study's token store contains."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repeat_study_cli.arguments import DataOption, SetOption, StudyArgument, console, load, require_writable
from repeat_study_cli.tables import WrappedTable

if TYPE_CHECKING:
    from data_prep.token_store import TokenStore


EXACT_COPIES = 10  # larger numbers of copies are grouped in the histogram, each group spanning a factor of 2


def inspect(
    study: StudyArgument,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    histogram: Annotated[
        Path | None,
        typer.Option(
            help="Write how many tokens occur how many times to this CSV file, for `predict --histogram`. It counts windows of 50 tokens."
        ),
    ] = None,
) -> None:
    """Show what a study's token stores contain.

    There is one store per source of training text, and one for a named pool.
    Prints the source, the size, and how much of the text occurs more than once before the study repeats any of it.
    """
    from data_prep.token_store import TokenStore

    require_writable(histogram)
    declared = load(study, set_)
    folders = [data_dir / data.store_name for data in declared.training_tables.values()]
    stores = [TokenStore(folder) for folder in folders]
    for store in stores:
        _print_store(store)
    if histogram:
        _write_histogram(histogram, stores)
        console.print(f"written: {histogram}")


def _write_histogram(path: Path, stores: "list[TokenStore]") -> None:
    """Write the columns `copies` and `tokens` (distinct tokens) of the training splits. Large numbers of copies are grouped."""
    from collections import defaultdict

    from data_prep.files import write_output
    from data_prep.natural_repeats import duplicate_census

    tokens: defaultdict[int, float] = defaultdict(float)
    occurrences: defaultdict[int, float] = defaultdict(float)
    for store in stores:
        for copies, distinct in duplicate_census(store.train).items():
            group = copies if copies <= EXACT_COPIES else EXACT_COPIES + copies.bit_length()
            tokens[group] += distinct
            occurrences[group] += copies * distinct
    rows = [f"{occurrences[group] / tokens[group]:.6g},{tokens[group]:.0f}" for group in sorted(tokens)]
    write_output(path, "\n".join(["copies,tokens", *rows, ""]).encode())


def _print_store(store: "TokenStore") -> None:
    from data_prep.token_store import NO_TOKENIZER
    from data_prep.tokenizer_audit import TextLoss

    manifest = store.manifest
    console.print(f"token store: {store.folder}, fingerprint {store.fingerprint}")
    console.print(f"vocabulary: {store.vocabulary:,} tokens, stored as {manifest['dtype']}")
    if not store.has_tokenizer:
        console.print(NO_TOKENIZER)
    source = dict(manifest["built_from"]["source"])
    console.print(f"source: {source.pop('kind')}")
    for key, value in source.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        if value is not None:
            console.print(f"  {key.replace('_', ' ')}: {text}")
    table = WrappedTable("split", "documents", "tokens", "bytes of text", "bytes per token")
    for name, split in manifest["splits"].items():
        text_bytes = split["text_bytes"]  # None if the store was built from tokens
        text = ("–", "–") if text_bytes is None else (f"{text_bytes:,}", f"{text_bytes / split['tokens']:.2f}")
        table.add_row(name, f"{split['documents']:,}", f"{split['tokens']:,}", *text)
    console.print(table)
    if "text_loss" in manifest:  # only if the study names a tokenizer
        console.print(str(TextLoss(**manifest["text_loss"])))
    for line in [*_corpus_lines(manifest["corpus"]), *_natural_repeats_lines(store.natural_repeats())]:
        console.print(line)


def _corpus_lines(corpus: dict[str, Any]) -> Iterator[str]:
    """Lines with the numbers of documents read and dropped."""
    yield (
        f"documents read: {corpus['read']:,}; dropped: {corpus['duplicates']:,} exact duplicates,"
        f" {corpus['empty']:,} empty, {corpus['bad']:,} malformed"
    )
    for row in corpus["bad_named"]:
        yield f"  malformed: {row}"
    yield from corpus.get("notes", [])
    if skipped := corpus.get("skipped"):
        yield skipped


def _natural_repeats_lines(repeats: dict[str, Any]) -> Iterator[str]:
    """Lines that report how much of the source text occurs more than once."""
    window, ngram = repeats["window"], repeats["ngram"]
    lines = (
        (f"training windows of {window} tokens that occur more than once", "repeated_window_share",
         "repeated_windows", "train_windows"),
        (f"test windows of {ngram} tokens that occur in the training split", "test_overlap_share",
         "test_ngrams_in_train", "test_ngrams"),
        (f"test windows of {window} tokens that occur in the training split", "test_window_overlap_share",
         "test_windows_in_train", "test_windows"),
    )  # fmt: skip
    for label, share, count, total in lines:
        yield f"{label}: {repeats[share]:.4%} ({repeats[count]:,} of {repeats[total]:,})"
    for split, key in (("training", "sampled_share"), ("test", "test_sampled_share")):
        if repeats[key] < 1:
            yield f"estimated from a sample of {repeats[key]:.2%} of all {split} windows"
