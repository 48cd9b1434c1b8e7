import numpy as np

from data_prep.mixture import Spacing, Stream
from data_prep.provenance import sightings
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run


def test_a_sighting_says_what_the_whole_run_shows(runs: list[Run], store: TokenStore) -> None:
    for spacing, distance in ((Spacing.PASSES, 0), (Spacing.UNIFORM, 0), (Spacing.BURSTS, 3)):
        run = runs[2].model_copy(update={"spacing": spacing, "burst_distance": distance})
        mixture, draw = run.mixture(), run.draw(store)
        whole = mixture.at(np.arange(run.positions))
        for seen in sightings(mixture, draw, [0, 1, 100, 101, run.positions - 1]):
            same = np.flatnonzero((whole.stream == seen.stream) & (whole.place == seen.place))
            earlier, later = same[same < seen.position], same[same > seen.position]
            assert (seen.since, seen.until) == (
                seen.position - earlier[-1] if len(earlier) else None,
                later[0] - seen.position if len(later) else None,
            )
            assert seen.copy == (len(earlier) + 1 if seen.stream is Stream.POOL else None)


def test_its_documents_hold_its_text(runs: list[Run], store: TokenStore) -> None:
    run = runs[1]
    names, offsets = store.document_names("train"), store.offsets("train")
    for seen in sightings(run.mixture(), run.draw(store), range(40)):
        assert seen.documents
        text = "".join(
            store.tokenizer().decode(
                store.train[offsets[number] : offsets[number + 1]].tolist(), skip_special_tokens=False
            )
            for number in (names.index(name) for name in seen.documents)
        )
        assert seen.text.strip("\ufffd") in text
