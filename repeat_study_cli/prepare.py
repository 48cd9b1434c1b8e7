"""`repeat-study prepare`: build a study's token stores."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repeat_study_cli.arguments import (
    DataOption,
    ProcessesOption,
    RunsOption,
    SetOption,
    StudyArgument,
    console,
    load,
    prepare_with_progress,
)
from repeat_study_cli.submission import (
    AccountOption,
    MemoryOption,
    ParallelismOption,
    PartitionOption,
    QosOption,
    TasksOption,
    TimeOption,
    allocation_options,
    check_cluster,
    merged_allocations,
)

if TYPE_CHECKING:
    from repeat_study.config.study import Study


class Cluster(StrEnum):
    """Where the stores are built."""

    LOCAL = "local"
    SLURM = "slurm"


def prepare(
    context: typer.Context,
    study: StudyArgument,
    set_: SetOption = None,
    cluster: Annotated[
        Cluster, typer.Option(help="Where to build: local (this machine) or slurm (jobs on a cluster).")
    ] = Cluster.LOCAL,
    processes: ProcessesOption = None,
    tasks: TasksOption = None,
    partition: PartitionOption = None,
    account: AccountOption = None,
    qos: QosOption = None,
    time: TimeOption = None,
    mem_gb: MemoryOption = None,
    array_parallelism: ParallelismOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Build a study's token stores, or check the existing ones.

    Text is encoded on all cores, or by the jobs of an array. An interrupted build continues when the command is repeated.

    These are the stores of the training text, of a named pool ([pool]), of additional test sets ([[evaluate]]) and of the studies that
    this study's runs start from.
    """
    from data_prep.token_store import NO_TOKENIZER, TokenStore
    from repeat_study.overlap_checks import shared_training_text

    declared = load(study, set_)
    if cluster is Cluster.SLURM:
        _submit(declared, allocation_options(context), tasks, data_dir, runs_dir)
        return
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


def _submit(declared: "Study", options: dict[str, Any], tasks: int | None, data_dir: Path, runs_dir: Path) -> None:
    """Submit jobs that build the missing stores."""
    from slurm.preparation import Preparation, submit_preparation
    from slurm.resolution import missing_stores

    allocations = merged_allocations(declared, options)
    check_cluster(declared, allocations)
    if not missing_stores(declared, data_dir):
        console.print("all token stores exist; nothing to submit")
        return
    allocation, mem_gb = allocations[declared.name], options.get("mem_gb")
    submit_preparation(Preparation(declared, data_dir, runs_dir, allocation, tasks, mem_gb, options), console.print)
    console.print(
        "`repeat-study status` shows the progress. If the preparation is interrupted, run this command again."
    )
