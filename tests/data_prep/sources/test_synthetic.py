from collections import Counter
from functools import cache
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.sources import SourceReport, Synthetic, documents
from data_prep.sources.synthetic import entropy_per_word, tokens_per_document, transitions, words_of, zipf

SMALL = Synthetic(seed=7, words=30, shortest=2, longest=9, passages=12, copy_probability=0.3)
Passage = tuple[list[str], bool]  # fresh words, and whether they are copied


def texts(spec: Synthetic, count: int) -> list[str]:
    return [document.text for document in islice(documents(spec, SourceReport()), count)]


def passages_of(text: str) -> list[Passage]:
    """Split a text into passages, and assert that every copy is exact."""
    assert text.endswith(" ;")
    passages = []
    for passage in text.removesuffix(" ;").split(" ; "):
        fresh, marker, copy = passage.partition(" = ")
        assert not marker or copy == fresh
        passages.append((fresh.split(" "), bool(marker)))
    return passages


@cache
def rank_after(spec: Synthetic) -> list[list[int]]:
    """Rank (from 0) of word w after word v, at [v][w]. The last row is for the start of a document."""
    return np.argsort(transitions(spec), axis=1).tolist()


def ranks_of(spec: Synthetic, text: str) -> list[int]:
    """Rank of every fresh word, given the fresh word before it."""
    state, ranks = spec.words, []
    for word in (int(word[1:]) for fresh, _ in passages_of(text) for word in fresh):
        ranks.append(rank_after(spec)[state][word])
        state = word
    return ranks


specs = st.builds(
    Synthetic,
    seed=st.integers(-(2**70), 2**70),
    words=st.integers(20, 60),
    zipf_exponent=st.floats(0, 2),
    copy_probability=st.sampled_from([0.0, 0.3, 1.0]),
    shortest=st.integers(1, 5),
    longest=st.integers(5, 12),
    passages=st.integers(40, 60),
)


@settings(max_examples=25)
@given(spec=specs)
def test_a_document_consists_of_passages_and_every_copy_is_exact(spec: Synthetic) -> None:
    for text in texts(spec, 5):
        passages = passages_of(text)
        assert len(passages) == spec.passages
        assert all(spec.shortest <= len(fresh) <= spec.longest for fresh, _ in passages)
        assert set(text.split(" ")) <= set(words_of(spec))
        if spec.copy_probability in (0.0, 1.0):
            assert {copied for _, copied in passages} == {bool(spec.copy_probability)}


def test_every_word_has_its_own_permutation_of_successors() -> None:
    rows = transitions(SMALL)
    assert rows.shape == (SMALL.words + 1, SMALL.words)
    assert (np.sort(rows, axis=1) == np.arange(SMALL.words)).all()
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)
    assert (rows != transitions(SMALL.model_copy(update={"seed": 8}))).any()


def test_document_i_depends_only_on_the_spec_and_i() -> None:
    names = [document.name for document in islice(documents(SMALL, SourceReport()), 3)]
    assert names == ["synthetic:0", "synthetic:1", "synthetic:2"]
    assert texts(SMALL, 50) == texts(SMALL, 80)[:50]
    assert not set(texts(SMALL, 500)) & set(texts(SMALL.model_copy(update={"seed": 8}), 500))


def test_no_two_documents_are_equal() -> None:
    report = SourceReport()
    kept = list(islice(documents(SMALL, report), 5000))
    assert len(kept) == report.read == 5000


def test_a_seed_gives_the_same_documents_on_every_machine() -> None:
    assert texts(Synthetic(), 1)[0].startswith(
        "w335 w171 w242 w91 w424 w417 w49 w254 w192 w66 w379 w6 w54 w361 w210 w53 w160 w141 ; w356"
    )


def test_fresh_words_have_the_entropy_of_the_zipf_law_given_the_previous_word() -> None:
    spec = Synthetic(words=20, zipf_exponent=1.2, passages=60)
    entropy = -(zipf(spec) * np.log(zipf(spec))).sum()
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts(spec, 300):
        fresh = ["start", *(word for words, _ in passages_of(text) for word in words)]
        pairs.update(pairwise(fresh))
    before: Counter[str] = Counter()
    for (word, _), times in pairs.items():
        before[word] += times
    total = pairs.total()
    measured = -sum(times * np.log(times / before[word]) for (word, _), times in pairs.items()) / total
    # A plug-in estimate from n pairs is too low by (cells - rows) / 2n on average [M55]: here 0.0007 nats.
    measured += spec.words * (spec.words - 1) / (2 * total)
    assert total > 250_000
    assert measured == pytest.approx(entropy, abs=0.005)


def test_documents_are_independent_of_each_other() -> None:
    spec = Synthetic(words=20, passages=30, shortest=4, longest=4)
    rows = np.array([ranks_of(spec, text) for text in texts(spec, 1000)])  # [documents, fresh words]
    surprise = -np.log(zipf(spec))[rows]
    surprise = (surprise - surprise.mean()) / surprise.std()
    for lag in (1, 2, 3):  # correlation of documents i and i + lag at the same position; standard error 1/sqrt(119,000)
        assert abs((surprise[lag:] * surprise[:-lag]).mean()) < 4 / np.sqrt(surprise[lag:].size)
    copies = np.array([[copied for _, copied in passages_of(text)] for text in texts(spec, 1000)]) - 0.5
    assert abs((copies[1:] * copies[:-1]).mean() * 4) < 4 / np.sqrt(copies[1:].size)
    # The variance of the sum over a document is that of independent words, so words in a document are independent too.
    assert surprise.sum(axis=1).var() == pytest.approx(surprise.shape[1], rel=4 * np.sqrt(2 / 1000))


def surprise_of_each_word(spec: Synthetic, text: str) -> list[float]:
    """-log p, in nats, of every word and of the end of text, for a predictor that knows the language."""
    log_p, rank = np.log(zipf(spec)), rank_after(spec)
    with np.errstate(divide="ignore"):
        copy, no_copy = np.log(spec.copy_probability), np.log1p(-spec.copy_probability)
    state, fresh, copying, left, nats = spec.words, list[str](), list[str](), spec.passages, list[float]()
    for word in text.split(" "):
        # Probability that the passage ends here if it has not ended before. Its length is uniform.
        stop = 0.0 if len(fresh) < spec.shortest else 1 / (spec.longest - len(fresh) + 1)
        if copying:
            expected = copying.pop(0)
            nats.append(0.0 if word == expected else np.inf)
            left -= expected == ";"
        elif word == "=":
            nats.append(-np.log(stop) - copy)
            copying, fresh = [*fresh, ";"], []
        elif word == ";":
            nats.append(-np.log(stop) - no_copy)
            left, fresh = left - 1, []
        else:
            number = int(word[1:])
            nats.append(float(-np.log1p(-stop) - log_p[rank[state][number]]))
            state = number
            fresh.append(word)
    nats.append(0.0 if left == 0 else np.inf)  # the end of text follows only the last passage
    return nats


@pytest.mark.parametrize(
    "spec",
    [
        SMALL,
        Synthetic(words=100, passages=8),
        Synthetic(words=50, copy_probability=1.0, shortest=1, longest=5, passages=30),
        Synthetic(words=50, copy_probability=0.0, shortest=6, longest=6, zipf_exponent=0.0),
    ],
)
def test_the_loss_of_an_ideal_predictor_is_the_closed_form_entropy(spec: Synthetic) -> None:
    surprises = [surprise_of_each_word(spec, text) for text in texts(spec, 1500)]
    nats, words = (
        np.array([sum(document) for document in surprises]),
        np.array([len(document) for document in surprises]),
    )
    assert np.isfinite(nats).all()
    measured = nats.sum() / words.sum()
    standard_error = (nats - measured * words).std() / words.mean() / np.sqrt(len(surprises))  # of a ratio of means
    assert words.mean() == pytest.approx(
        tokens_per_document(spec), abs=4 * words.std() / np.sqrt(len(surprises)) + 1e-9
    )
    assert abs(measured - entropy_per_word(spec)) < 4 * standard_error + 1e-9
    assert standard_error < 0.01 * measured


def test_the_entropy_agrees_with_a_calculation_by_hand() -> None:
    # Two equally frequent words, 100 per passage, always copied, one passage: 100·log 2 nats over 100 + 1 + 100 + 1
    # words and the end of text.
    spec = Synthetic(words=2, zipf_exponent=0.0, copy_probability=1.0, shortest=100, longest=100, passages=1)
    assert entropy_per_word(spec) == pytest.approx(100 * np.log(2) / 203)
