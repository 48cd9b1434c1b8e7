"""The error message for a corpus that leaves a split without documents."""

from data_prep.data_spec import DataSpec
from data_prep.token_store import Split

MORE_DOCUMENTS = "provide several files, or a .jsonl file with one document per line"  # for sources of text


def empty_split(spec: DataSpec, empty: Split, written: int, kept: int, more_documents: str) -> str:
    """Describe why a split is empty, and what to change.

    written: number of documents written, all to the other split; kept: number of distinct documents read so far;
    more_documents: how the user can provide more documents.
    """
    name, other = ("training", "test") if empty == "train" else ("test", "training")
    text = f"data: no {name} text:"
    if spec.test_fraction == 1:
        return (
            f"{text} test_fraction = 1 leaves no text to train a tokenizer on; set data.tokenizer or a smaller"
            " test_fraction"
        )
    if kept == 1:
        return (
            f"{text} the corpus is a single document, and a document is never divided, so all of it is {other} text;"
            f" {more_documents}"
        )
    if written < kept:
        return (
            f"{text} data.max_tokens = {spec.max_tokens} is reached after {written} documents, which are all"
            f" {other} text; increase data.max_tokens or provide shorter documents"
        )
    return (
        f"{text} all {written} documents are {other} text with test_fraction = {spec.test_fraction}; provide more"
        " documents or change test_fraction"
    )
