"""What a study will train, repeat and cost, as tables, before anything is spent."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from repeat_study.config.parents import Parents
from repeat_study.config.resources import Accelerator
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.cost import expected_evaluation_share, run_flops
from repeat_study.training.bundles import bundle_memory, pack_bundles


@dataclass(frozen=True)
class Prices:
    """FLOP/s that are taken for granted."""

    gpu: float
    this_machine: float


def plan_of(study: Study, prices: Prices) -> Iterator[Table | str]:
    """The grid with its exact repeat accounting, its sizes with their cost, and the totals."""
    runs, vocabulary = study.runs(), study.data.expected_vocabulary()
    study.check_sharing(vocabulary)
    yield _grid(runs, vocabulary)
    yield (
        f"{study.name}: {len(runs)} runs; N: parameters without embeddings; unique, pool: tokens; evaluation: share of the FLOPs\n"
        "every unique token is seen once, every pool token exactly R times; tokens are whole optimiser steps\n"
    )
    yield _sizes(study, runs, vocabulary, prices)
    if study.parent_study and (needed := _parents(study)):
        their_flops = sum(run_flops(run, vocabulary) for run in needed)
        yield (
            f"before them {len(needed)} runs of {study.parent_study.name}, from which they start, where these are not done:"
            f" {their_flops:.2e} FLOPs\n"
        )
    at_once = study.resources.micro_sequences or "all"
    flops = sum(run_flops(run, vocabulary) for run in runs)
    yield (
        f"N all: with embeddings and gains; jobs: runs or bundles of up to so many lanes, on GPUs; memory: of a process on a GPU, in"
        f" bfloat16, {at_once} sequences of a step at a time, at least\n"
        f"total {flops:.2e} FLOPs: {_hours(flops / prices.gpu)} GPU-hours, or {_hours(flops / prices.this_machine)} hours"
        " on this machine's CPU"
    )


def _parents(study: Study) -> list[Run]:
    assert study.parent_study
    return study.parents_needed(Parents(study.parent_study.name, study.parent_study.runs()))


def plain_table(first: str, *others: str) -> Table:
    """A table without lines, numbers to the right."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right")
    return table


def _grid(runs: list[Run], vocabulary: int) -> Table:
    table = plain_table("run", "N", "steps", "tokens", "unique", "pool", "R", "repeated", "FLOPs", "evaluation")
    for run in runs:
        pool, tokens = run.pool * run.context, run.positions * run.context
        repeated = pool * run.repeats
        counts = (run.shape.parameters_non_embedding, run.steps, tokens, tokens - repeated, pool, run.repeats)
        costs = (f"{run_flops(run, vocabulary):.2e}", f"{expected_evaluation_share(run):.1%}")
        table.add_row(run.label, *(f"{count:,}" for count in counts), f"{repeated / tokens:.3%}", *costs)
    return table


def _sizes(study: Study, runs: list[Run], vocabulary: int, prices: Prices) -> Table:
    table = plain_table("size", "N", "N all", "runs", "jobs", "lanes", "tokens", "FLOPs", "GPU-hours", "memory")
    resources = study.resources
    for model in dict.fromkeys(run.model for run in runs):
        of_size = [run for run in runs if run.model == model]
        rows = max(run.model_vocabulary(vocabulary) for run in of_size)
        flops = sum(run_flops(run, vocabulary) for run in of_size)
        packed = pack_bundles(of_size, resources, vocabulary, resources.accelerator is not Accelerator.CPU)
        memory = max(bundle_memory(bundle[0], len(bundle), resources, vocabulary) for bundle in packed)
        lanes = max(map(len, packed))
        run = of_size[0]
        counts = (
            run.shape.parameters_non_embedding,
            run.shape.parameters_total(rows),
            len(of_size),
            len(packed),
            lanes,
        )
        table.add_row(
            model,
            *(f"{count:,}" for count in counts),
            f"{sum(run.positions * run.context for run in of_size):.2e}",
            f"{flops:.2e}",
            _hours(flops / prices.gpu),
            f"{memory / 1e9:,.1f} GB" if memory > 1e9 else f"{memory / 1e6:.1f} MB",
        )
    return table


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"
