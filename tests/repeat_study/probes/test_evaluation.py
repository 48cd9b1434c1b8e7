"""The contents of the evaluation sets, and the step from which the seen sequences are evaluated."""

import numpy as np
import pytest
import torch

from data_prep.mixture import Stream
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import FurtherTest
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.probes.evaluation import PROBES, evaluator
from repeat_study.probes.head_table import ABLATED_SEQUENCES
from repeat_study.probes.text_losses import mean, own_losses, per_sequence
from repeat_study.records.metric import Cost
from repeat_study.records.metrics import METRICS, further_test_loss


def rows_of(store: TokenStore, split: str) -> set[tuple[int, ...]]:
    count = store.sequences_in(split, 32)  # type: ignore[arg-type]
    return {tuple(row) for row in store.gather(split, np.arange(count), 32).tolist()}  # type: ignore[arg-type]


def test_the_test_set_comes_from_the_test_split_and_is_the_same_for_every_run(
    runs: list[Run], store: TokenStore
) -> None:
    test = rows_of(store, "test")
    sets = [evaluator(run, store).texts.test for run in (*runs, runs[0].model_copy(update={"seed": 5}))]
    assert all(torch.equal(test_set, sets[0]) for test_set in sets)
    assert sets[0].shape == (16, 33)
    assert {tuple(row) for row in sets[0].tolist()} <= test
    assert len({tuple(row) for row in sets[0].tolist()} - rows_of(store, "train")) >= 15


def test_the_test_set_covers_many_documents(runs: list[Run], store: TokenStore) -> None:
    sizes = runs[0].evaluation.model_copy(update={"test_sequences": 64})
    test = evaluator(runs[0].model_copy(update={"evaluation": sizes}), store).texts.test
    all_rows = store.gather("test", np.arange(store.sequences_in("test", 32)), 32)
    places = [int(np.flatnonzero((all_rows == row).all(axis=1))[0]) for row in test.numpy()]
    documents = np.searchsorted(store.offsets("test"), np.array(places) * 33, side="right")
    assert len(set(documents.tolist())) > min(10, store.manifest["splits"]["test"]["documents"] // 2)


def test_pool_and_seen_sets_come_from_the_pool_and_the_unique_stream(runs: list[Run], store: TokenStore) -> None:
    for run in runs:
        mixture, draw, sets = run.mixture(), run.draw(store), evaluator(run, store)
        slots = mixture.at(np.arange(run.positions))
        tokens = draw.tokens(slots)
        pool = {tuple(row) for row in tokens[slots.stream == Stream.POOL].tolist()}
        unique = {tuple(row) for row in tokens[slots.stream == Stream.UNIQUE].tolist()}
        assert {tuple(row) for row in sets.texts.seen.tolist()} <= unique
        if run.repeats > 1:
            assert {tuple(row) for row in sets.texts.pool.tolist()} <= pool
        else:
            assert len(sets.texts.pool) == 8 and not {tuple(row) for row in sets.texts.pool.tolist()} & unique, (
                "a clean run never trains on its pool sequences"
            )


def test_runs_of_a_seed_are_evaluated_on_the_same_pool_and_unique_text(runs: list[Run], store: TokenStore) -> None:
    sets = [evaluator(run, store) for run in runs[:3]]
    assert all(
        torch.equal(run.texts.pool, sets[0].texts.pool) and torch.equal(run.texts.seen, sets[0].texts.seen)
        for run in sets
    )


@pytest.mark.parametrize("which", range(6))
def test_seen_sequences_are_evaluated_from_the_first_step_after_all_of_them_were_trained_on(
    which: int, runs: list[Run], store: TokenStore
) -> None:
    run = runs[which]
    stream = run.mixture().at(np.arange(run.positions)).stream
    eighth = int(np.flatnonzero(stream == Stream.UNIQUE)[7])
    sets = evaluator(run, store)
    assert sets.texts.seen_after == eighth // run.sequences_per_step + 1
    model = Decoder(run.shape, store.vocabulary, run.context, [0])
    assert sets(model, sets.texts.seen_after - 1).row["seen_unique_loss"] is None
    assert sets(model, sets.texts.seen_after).row["seen_unique_loss"] is not None


def test_mean_loss_is_the_mean_over_all_tokens_for_any_chunk_size(runs: list[Run], store: TokenStore) -> None:
    model = Decoder(runs[0].shape, store.vocabulary, 32, [0])
    tokens = torch.from_numpy(store.gather("test", np.arange(70), 32))
    with torch.no_grad():
        logits = model(tokens[None, :, :-1])[0].double().flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
    (losses_bt,) = own_losses(model, [tokens])
    assert mean(losses_bt) == pytest.approx(float(expected), abs=1e-6)
    assert np.mean(per_sequence(losses_bt)["loss"]) == pytest.approx(float(expected), abs=1e-6)
    (none_bt,) = own_losses(model, [tokens[:0]])
    assert mean(none_bt) is None and not per_sequence(none_bt)


def test_an_evaluation_contains_every_head_and_every_token_of_a_paragraph(runs: list[Run], store: TokenStore) -> None:
    run = next(run for run in runs if run.model == "2x16")
    evaluate = evaluator(run, store)
    evaluation = evaluate(Decoder(run.shape, store.vocabulary, 32, [0]), 0)
    assert (evaluation.tables["heads"]["layer"], evaluation.tables["heads"]["head"]) == ([0, 1], [0, 0])
    assert all(len(column) == 2 for column in evaluation.tables["heads"].values())
    scores = evaluation.tables["heads"]["prefix_matching"]
    assert evaluation.row["prefix_matching"] == max(scores)
    assert (
        evaluation.row["prefix_matching_ci"]
        == evaluation.tables["heads"]["prefix_matching_ci"][scores.index(max(scores))]
    )
    assert evaluation.row["prefix_matching_null"] == max(evaluation.tables["heads"]["prefix_matching_null"])
    tokens, copying = evaluation.tables["paragraph"], evaluate.copying
    assert all(len(column) == copying.copies * copying.length for column in tokens.values())
    assert "".join(tokens["token"][: copying.length]) == "Alice was beginn"[: len("".join(tokens["token"][:8]))]
    assert tokens["copy"] == [copy for copy in (1, 2, 3, 4) for _ in range(8)]
    first = copying(Decoder(run.shape, store.vocabulary, 32, [0])).copied[0]
    assert tokens["loss"] == first.flatten().tolist()


def test_a_context_too_short_for_heads_is_evaluated_without_them(runs: list[Run], store: TokenStore) -> None:
    run = runs[0].model_copy(update={"context": 7})
    evaluation = evaluator(run, store)(Decoder(run.shape, store.vocabulary, 7, [0]), 0)
    assert (
        "heads" not in evaluation.tables
        and "prefix_matching" not in evaluation.row
        and evaluation.row["copying_loss"] > 0
    )


PER_COPY_OR_POSITION = {
    "loss_by_position",
    "copying_loss_per_copy",
    "random_copying_loss_per_copy",
}  # lists, not metrics


def test_the_list_of_metrics_contains_every_number_of_an_evaluation(runs: list[Run], store: TokenStore) -> None:
    extra_tests = (FurtherTest(name="other", fingerprint=store.fingerprint),)
    run = runs[1].model_copy(update={"further_tests": extra_tests})
    evaluation = evaluator(run, store, parent=runs[2])(Decoder(run.shape, store.vocabulary, 32, [0]), 64)
    metrics = [*(metric for metric in METRICS if metric.probe), further_test_loss("other")]
    expected = {key for m in metrics for key in (m.key, m.interval_key, m.null_key) if key}
    null_intervals = {f"{m.null_key}_ci" for m in metrics if m.null_key}  # not every null has one
    assert evaluation.row.keys() - null_intervals == expected | PER_COPY_OR_POSITION
    columns = {c for m in metrics for c in (m.column, m.interval_column, m.null_column) if c}
    columns |= {f"{m.null_column}_ci" for m in metrics if m.null_column}
    assert evaluation.tables["heads"].keys() == columns | {"layer", "head"}


def test_the_list_of_metrics_contains_the_cost_of_every_probe(runs: list[Run], store: TokenStore) -> None:
    inputs = evaluator(runs[1], store)
    costs = {name: [metric.cost for metric in METRICS if metric.cost and metric.probe == name] for name in PROBES}
    assert inputs.heads and len(inputs.copying.copied) >= ABLATED_SEQUENCES
    assert costs.pop("copying") == [Cost(sequences=len(inputs.copying.sequences))]
    assert costs.pop("head_table") == [
        Cost(sequences=len(inputs.heads.sequences)),
        Cost(sequences_per_head=2 * ABLATED_SEQUENCES),  # paragraphs and their shuffles
        Cost(sequences_per_head=ABLATED_SEQUENCES),  # test sequences
    ]
    assert costs["text_losses"] == costs["parent_losses"] == [], "the costs of these depend on the run's spec"
