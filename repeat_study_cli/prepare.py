"""`repeat-study prepare`: build a study's token stores."""

from pathlib import Path

from repeat_study_cli.arguments import (
    DataOption,
    ProcessesOption,
    SetOption,
    StudyArgument,
    console,
    load,
    prepare_with_progress,
)


def prepare(
    study: StudyArgument,
    set_: SetOption = None,
    processes: ProcessesOption = None,
    data_dir: DataOption = Path("data"),
) -> None:
    """Build a study's token stores, or check the existing ones.

    Text is encoded on all cores. An interrupted build continues when the command is repeated.

    These are the stores of the training text, of a named pool ([pool]), of additional test sets ([[evaluate]]) and of the studies that
    this study's runs start from.
    """
    from data_prep.token_store import NO_TOKENIZER, TokenStore
    from repeat_study.overlap_checks import shared_training_text

    declared = load(study, set_)
    ready = prepare_with_progress(declared, data_dir, processes)
    names = ready.source_names
    for store in ready.training_stores:
        if len(ready.training_stores) > 1:
            console.print(f"source {names[store.fingerprint]}:")
        for name, split in store.manifest["splits"].items():
            counts = f"{split['documents']:,} documents, {split['tokens']:,} tokens"
            if split["text_bytes"] is not None:  # it is None if the store was built from tokens
                counts += f", {split['text_bytes']:,} bytes of text"
            console.print(f"{name}: {counts}")
        if not store.has_tokenizer:
            console.print(NO_TOKENIZER)
        console.print(f"token store: {store.folder}, fingerprint {store.fingerprint}")
    if ready.pool_drawn_from:
        console.print(
            f"The pool is drawn from the text of {ready.pool_drawn_from}, and the unique stream leaves this part of the text out."
        )
    for store, other, shared in shared_training_text(ready):
        console.print(
            f"training documents in {names[store.fingerprint]} that are also in {names[other.fingerprint]}:"
            f" {shared.documents:,} ({shared.tokens:,} tokens)"
        )
    for text in declared.evaluate:
        test_store = TokenStore(data_dir / text.data(declared.data).store_name)
        split = test_store.manifest["splits"]["test"]
        counts = f"{split['documents']:,} documents, {split['tokens']:,} tokens"
        console.print(f"test set {text.name}: {counts}; token store: {test_store.folder}")
