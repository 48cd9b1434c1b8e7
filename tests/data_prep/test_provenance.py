import numpy as np

from data_prep.mixture import Spacing, Stream
from data_prep.provenance import describe_sequences
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run


def test_descriptions_agree_with_the_positions_of_all_copies(runs: list[Run], store: TokenStore) -> None:
    for spacing, distance in ((Spacing.PASSES, 0), (Spacing.UNIFORM, 0), (Spacing.BURSTS, 3)):
        run = runs[2].model_copy(update={"spacing": spacing, "burst_distance": distance})
        mixture, draw = run.mixture(), run.draw(store)
        sequences = mixture.at(np.arange(run.positions))
        for sequence in describe_sequences(mixture, draw, [0, 1, 100, 101, run.positions - 1]):
            same = np.flatnonzero((sequences.stream == sequence.stream) & (sequences.place == sequence.place))
            earlier, later = same[same < sequence.position], same[same > sequence.position]
            assert (sequence.since_last, sequence.until_next) == (
                sequence.position - earlier[-1] if len(earlier) else None,
                later[0] - sequence.position if len(later) else None,
            )
            assert sequence.copy == (len(earlier) + 1 if sequence.stream is Stream.POOL else None)


def test_the_named_documents_contain_the_text_of_the_sequence(runs: list[Run], store: TokenStore) -> None:
    run = runs[1]
    names, offsets = store.document_names("train"), store.offsets("train")
    for sequence in describe_sequences(run.mixture(), run.draw(store), range(40)):
        assert sequence.documents
        count = len(sequence.documents)
        # Several documents can have the same name, because names are relative to the folders of the source.
        texts = [
            store.tokenizer().decode(
                store.train[offsets[first] : offsets[first + count]].tolist(), skip_special_tokens=False
            )
            for first in range(len(names) - count + 1)
            if names[first : first + count] == sequence.documents
        ]
        assert any(sequence.text.strip("\ufffd") in text for text in texts)
