"""`repeat-study plan`: show what a study trains, repeats and costs before anything is built."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repeat_study.formatting import byte_size, duration, plural, short_count
from repeat_study_cli.arguments import (
    DataOption,
    LanesOption,
    ProcessesOption,
    RunsOption,
    SetOption,
    StudyArgument,
    console,
    cores,
    finite,
    load,
)
from repeat_study_cli.plan_power import power_of
from repeat_study_cli.tables import WrappedTable

if TYPE_CHECKING:
    from repeat_study.config.corpora import PoolCorpus
    from repeat_study.config.run import Run
    from repeat_study.config.study import Study

CLUSTER_JOBS = 64  # for the time that preparation takes on a cluster
SERIAL_SHARE = 0.02  # of the core time for encoding; measured on 1.5 billion tokens, see results/LOG.md


def plan(
    study: StudyArgument,
    set_: SetOption = None,
    processes: ProcessesOption = None,
    lanes: LanesOption = None,
    gigaflops: Annotated[
        float, typer.Option(min=1e-3, callback=finite, help="Assumed speed of one process on a CPU, in GFLOP/s.")
    ] = 50.0,
    peak: Annotated[
        float,
        typer.Option(
            min=1e-3, callback=finite, help="Peak speed of the GPU in TFLOP/s. The default is for an H100 in bfloat16."
        ),
    ] = 989.0,
    utilisation: Annotated[
        float,
        typer.Option(
            min=1e-3, max=1, callback=finite, help="Assumed share of the GPU's peak speed that training reaches."
        ),
    ] = 0.4,
    encoding: Annotated[
        float,
        typer.Option(min=1e-3, callback=finite, help="Assumed speed of one core that encodes text, in MB/s."),
    ] = 2.0,
    spread_from: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY|FOLDER",
            help="Finished runs that show how much results vary between seeds. [default: the study's own]",
        ),
    ] = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Show a study's runs with their exact repeats and costs.

    Nothing is built or trained. Times are estimates that include training, evaluation and startup at the assumed speeds. With finished
    runs in several seeds, the plan also shows which differences the grid can detect.
    """
    from repeat_study.config.corpora import StudyTexts
    from repeat_study.shortages import expected_test_shortage, expected_train_shortage

    declared = load(study, set_, lanes)
    runs = declared.runs(StudyTexts(pool_corpus=_pool_corpus(declared, data_dir)))
    power = list(power_of(declared, runs, spread_from, runs_dir))  # before any output, because the runs may be damaged
    speeds = Speeds(peak * 1e12 * utilisation, gigaflops * 1e9, processes or cores())
    for section in plan_of(declared, runs, speeds, data_dir):
        console.print(section)
    for declared_study in declared.lineage:
        for warning in (*expected_train_shortage(declared_study), *expected_test_shortage(declared_study)):
            console.print(warning)
    for section in _preparation(declared, data_dir, encoding * 1e6, speeds.processes):
        console.print(section)
    console.print(
        f"assumed: {peak:g} TFLOP/s per GPU at {utilisation:.0%} utilisation; {gigaflops:g} GFLOP/s per CPU process"
    )
    for section in power:
        console.print(section)


@dataclass(frozen=True)
class Speeds:
    """Assumed speeds, in FLOP/s."""

    gpu: float
    process: float  # one process on this machine's CPU
    processes: int


def plan_of(study: "Study", runs: "list[Run]", speeds: Speeds, data_dir: Path) -> "Iterator[WrappedTable | str]":
    """Yield a table of runs with exact repeat counts, a table of model sizes with costs, and the totals.

    data_dir: the folder of the token stores. If the store of a named pool is already there, the size of the pool is exact.
    """
    from repeat_study.cost import local_seconds, run_flops

    vocabulary = study.data.expected_vocabulary()
    study.check_sharing(vocabulary)
    yield _grid(runs, vocabulary)
    yield (
        f"\n{study.name}: {plural(len(runs), 'run')}. N is the number of non-embedding parameters. The columns 'unique' and 'pool'"
        " count tokens: each unique token is seen once, and each pool token exactly R times. Token counts are rounded to whole"
        " steps. The column 'eval' is the share of FLOPs spent on evaluation.\n"
    )
    if study.pool:
        yield _pool_notes(study, runs, _pool_drawn_from(study, data_dir))
    if study.data.mix:
        yield _sources(runs)
        yield "\nThe column of each source counts its tokens in the unique stream.\n"
    yield _sizes(study, runs, vocabulary, speeds)
    sequences = study.resources.micro_sequences
    batch = f"{sequences} sequences per pass" if sequences else "all of a step's sequences in one pass"
    yield (
        "\nThe column 'N all' includes the embeddings. The column 'lanes' is the largest number of runs that one job trains together."
        f" Memory is a lower bound for a GPU process that trains in bfloat16 with {batch}.\n"
    )
    if study.parent_study and (parents := _parents(study)):
        flops = sum(run_flops(run, vocabulary) for run in parents)
        yield (
            f"{plural(len(parents), 'run')} in {study.parent_study.name} will be trained first, unless already done:"
            f" {flops:.2e} FLOPs\n"
        )
    flops = sum(run_flops(run, vocabulary) for run in runs)
    here = local_seconds(runs, vocabulary, speeds.process, speeds.processes)
    yield (
        f"total {flops:.2e} FLOPs: {duration(flops / speeds.gpu)} on one GPU, or about {duration(here)} on this machine's"
        f" CPU with {plural(speeds.processes, 'process')} (estimated, including startup and evaluation)"
    )


def _parents(study: "Study") -> "list[Run]":
    from repeat_study.config.parents import Parents

    assert study.parent_study
    return study.parents_needed(Parents(study.parent_study.name, study.parent_study.runs()))


def _preparation(
    study: "Study", data_dir: Path, bytes_per_second: float, processes: int
) -> "Iterator[WrappedTable | str]":
    """A table of the costs of building the missing stores, and their total."""
    from repeat_study.preparation_cost import preparation_costs

    costs = preparation_costs(study, data_dir, bytes_per_second)
    if not costs:
        return
    table = WrappedTable("token store", "text", "tokens", "core time", "disk")
    for cost in costs:
        size = ("" if cost.is_exact else "~") + byte_size(cost.text_bytes)
        table.add_row(
            cost.store, size, f"~{short_count(cost.tokens)}", duration(cost.core_seconds), byte_size(cost.disk_bytes)
        )
    yield table
    seconds = sum(cost.core_seconds for cost in costs)
    cores_here, cluster = duration(seconds / processes), duration(seconds / CLUSTER_JOBS)
    core_time = f"{seconds / 3600:,.3g} core hours" if seconds >= 60 else f"{seconds:.2g} core seconds"
    yield (
        f"\nEncoding the text of the missing token stores takes {core_time}: about {cores_here} on {plural(processes, 'core')} of"
        f" this machine, or {cluster} in {CLUSTER_JOBS} jobs (`prepare --cluster slurm --tasks {CLUSTER_JOBS}`). One process then drops"
        f" duplicates and writes the stores, which takes about {duration(SERIAL_SHARE * seconds)} more. Half of the disk space is free"
        f" again afterwards. One core is assumed to encode {bytes_per_second / 1e6:g} MB/s, the rate that benchmarks/data.py measures"
        " with a vocabulary of 50,257; --encoding changes it.\n"
    )


def _count(value: int) -> tuple[str, str]:
    return f"{value:,}", short_count(value)


def _grid(runs: "list[Run]", vocabulary: int) -> WrappedTable:
    from repeat_study.cost import expected_evaluation_share, run_flops

    headings = ("run", "N", "steps", "tokens", "unique", "pool", "R", "repeated", "FLOPs", "eval")
    table = WrappedTable(*headings, optional=("FLOPs", "eval", "steps", "N"))
    for run in runs:
        pool, tokens = run.pool * run.context, run.positions * run.context
        repeated = pool * run.repeats
        counts = (run.shape.parameters_non_embedding, run.steps, tokens, tokens - repeated, pool)
        share = repeated / tokens
        mark = "~" if _is_estimate(run) else ""
        costs = (f"{run_flops(run, vocabulary):.2e}", f"{expected_evaluation_share(run):.1%}")
        cells = [*map(_count, counts[1:]), (f"{share:.3%}", f"{share:.1%}")]
        marked = [(mark + long, mark + short) for long, short in cells]
        table.add_row(run.label, _count(counts[0]), *marked[:-1], f"{run.repeats:,}", marked[-1], *costs)
    return table


def _pool_corpus(study: "Study", data_dir: Path) -> "PoolCorpus | None":
    """The store of the study's named pool if it is already built, so that its size is known; otherwise None."""
    from data_prep.token_store import MANIFEST, TokenStore
    from repeat_study.config.corpora import PoolCorpus

    if study.pool is None or not ((folder := data_dir / study.pool.data(study.data).store_name) / MANIFEST).is_file():
        return None
    store = TokenStore(folder)
    return PoolCorpus.of(store)


def _pool_drawn_from(study: "Study", data_dir: Path) -> str | None:
    """The name of the source that a named pool is drawn from, as far as is known before all stores are built; otherwise None."""
    from data_prep.token_store import MANIFEST, TokenStore

    assert study.pool
    pool, names = study.pool.data(study.data), [source.label for source in study.data.mix] or ["data"]
    for name, data in zip(names, study.data.stores, strict=True):
        folders = [data_dir / spec.store_name for spec in (data, pool)]
        built = all((folder / MANIFEST).is_file() for folder in folders)
        if data == pool or (built and len({TokenStore(folder).fingerprint for folder in folders}) == 1):
            return name
    return None


def _is_estimate(run: "Run") -> bool:
    """Whether the size of the run's pool is an estimate, because its store is not built yet."""
    pool = run.pool_corpus
    return pool is not None and not pool.fingerprint and 0 < run.fixed_pool == pool.tokens // (run.context + 1)


def _pool_notes(study: "Study", runs: "list[Run]", drawn_from: str | None) -> str:
    """Explain the arms of a study with a named pool."""
    lines = ["The pool has its own source."]
    if drawn_from:
        lines = [
            f"The pool is drawn from the text of {drawn_from}, and the unique stream leaves this part of the text out."
        ]
    if any(run.is_clean_control for run in runs):
        lines.append("Runs with R = 0 train on none of its text.")
    else:
        lines.append("There is no clean control; add runs with repeats = 0.")
    if any(run.repeats == 1 for run in runs):
        lines.append("Runs with R = 1 train on it once.")
    if any(run.hold_fixed is not run.hold_fixed.TOTAL for run in runs):
        lines.append(
            "Runs labeled 'fresh' have equal numbers of unique tokens, to within one step, and different numbers of steps."
        )
    if any(_is_estimate(run) for run in runs):
        lines.append(
            'Numbers marked "~" are estimates, with a pool of pool.max_tokens or the largest pool that fits into every run; `prepare`'
            " determines its size."
        )
    return " ".join(lines) + "\n"


def _sources(runs: "list[Run]") -> WrappedTable:
    """A table of the unique tokens that each run reads from each source of a mixture."""
    names = [mixed.name for mixed in runs[0].mix]
    table = WrappedTable("run", *names)
    for run in runs:
        counts = run.sequences_by_source(run.mixture().unique_positions)
        table.add_row(run.label, *(_count(counts[name] * run.context) for name in names))
    return table


def _sizes(study: "Study", runs: "list[Run]", vocabulary: int, speeds: Speeds) -> WrappedTable:
    from repeat_study.config.resources import Accelerator
    from repeat_study.cost import run_flops
    from repeat_study.training.bundles import bundle_memory, pack_bundles

    headings = ("size", "N", "N all", "runs", "jobs", "lanes", "tokens", "FLOPs", "GPU time", "memory")
    table = WrappedTable(*headings)
    resources = study.resources
    for model in dict.fromkeys(run.model for run in runs):
        runs_of_size = [run for run in runs if run.model == model]
        rows = max(run.model_vocabulary(vocabulary) for run in runs_of_size)
        flops = sum(run_flops(run, vocabulary) for run in runs_of_size)
        packed = pack_bundles(runs_of_size, resources, vocabulary, resources.accelerator is not Accelerator.CPU)
        memory = max(bundle_memory(bundle[0], len(bundle), resources, vocabulary) for bundle in packed)
        shape = runs_of_size[0].shape
        table.add_row(
            model,
            *map(_count, (shape.parameters_non_embedding, shape.parameters_total(rows))),
            *(f"{count:,}" for count in (len(runs_of_size), len(packed), max(map(len, packed)))),
            _count(sum(run.positions * run.context for run in runs_of_size)),
            f"{flops:.2e}",
            duration(flops / speeds.gpu),
            byte_size(memory),
        )
    return table
