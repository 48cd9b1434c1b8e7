import math

import pytest
import torch
from scipy.stats import t as student_t

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from data_prep.tokenizer import word_tokenizer
from repeat_study.config.model_sizes import shape_of
from repeat_study.model.decoder import Decoder
from repeat_study.probes.copying import COPIES, copying_probe, split_paragraphs, token_texts


class LogitModel(Decoder):
    """A model defined by its logits."""

    def token_losses(self, sequences_lbs: torch.Tensor) -> torch.Tensor:
        logits, targets = self(sequences_lbs[..., :-1]), sequences_lbs[..., 1:]
        return torch.nn.functional.cross_entropy(logits.movedim(-1, 1), targets, reduction="none")


class Copier(LogitModel):
    """Predicts that each token equals the one `period` tokens before it; the prediction is uniform in the first period."""

    def forward(self, tokens_lbt: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens_lbt.shape, self.vocabulary)
        period = self.period
        for t in range(period, tokens_lbt.shape[-1]):
            logits[0, torch.arange(tokens_lbt.shape[1]), t, tokens_lbt[0, :, t - period + 1]] = 20.0
        return logits

    period = 0


@pytest.mark.parametrize("context", [16, 64, 2560])
def test_the_probe_has_as_many_copies_as_fit(store: TokenStore, context: int) -> None:
    probe = copying_probe(store.tokenizer(), store.end_of_text, context)
    assert probe.copied.shape == (6, 1 + probe.copies * probe.length)
    assert 4 <= probe.copies <= COPIES and probe.copies * probe.length <= context
    assert (probe.copies + 1) * probe.length > context or probe.copies == COPIES
    assert probe.copied[0, 0] == store.end_of_text
    copies = probe.copied[0, 1:].view(probe.copies, probe.length)
    assert (probe.copied[:, 1:].view(6, probe.copies, -1) == probe.copied[:, None, 1 : 1 + probe.length]).all()
    if context == 2560:
        assert probe.copies == COPIES and store.tokenizer().decode(copies[0].tolist()).startswith(
            "Alice was beginning to"
        )


def test_the_null_shuffles_every_copy(store: TokenStore) -> None:
    probe = copying_probe(store.tokenizer(), store.end_of_text, 64)
    shuffled = probe.sequences[6:, 1:].view(6, probe.copies, probe.length)
    paragraphs = probe.copied[:, None, 1 : 1 + probe.length]
    assert (shuffled.sort(dim=-1).values == paragraphs.sort().values).all()
    assert not (shuffled == shuffled[:, :1]).all(dim=-1)[:, 1:].any()


def test_a_copier_has_zero_loss_on_copies_but_not_on_the_null(store: TokenStore) -> None:
    probe = copying_probe(store.tokenizer(), store.end_of_text, 64)
    model = Copier(shape_of("1x16"), 320, 64, [0])
    model.period = probe.length
    numbers = probe(model).row("copying")
    assert numbers["copying_loss"] < 1e-3
    assert numbers["copying_loss_per_copy"][0] == pytest.approx(math.log(320), abs=1e-3)
    assert len(numbers["copying_loss_per_copy"]) == probe.copies
    assert numbers["copying_gain"] == pytest.approx(math.log(320), abs=1e-2)
    assert numbers["copying_gain_null"] < 0, "copying from shuffled copies raises the loss"


class Cache(LogitModel):
    """Predicts tokens in proportion to their counts so far. This gains from repetition without copying."""

    def forward(self, tokens_lbt: torch.Tensor) -> torch.Tensor:
        seen = torch.nn.functional.one_hot(tokens_lbt, self.vocabulary).cumsum(dim=2)
        return torch.log(seen + 0.01)


def test_a_model_that_only_counts_tokens_gains_no_more_than_its_null(store: TokenStore) -> None:
    probe = copying_probe(store.tokenizer(), store.end_of_text, 64)
    numbers = probe(Cache(shape_of("1x16"), 320, 64, [0])).row("copying")
    assert numbers["copying_gain"] > 0.5
    assert numbers["copying_gain"] == pytest.approx(numbers["copying_gain_null"], rel=0.15)


def test_an_untrained_model_gains_nothing(store: TokenStore) -> None:
    numbers = copying_probe(store.tokenizer(), store.end_of_text, 64)(Decoder(shape_of("1x16"), 320, 64, [0])).row(
        "copying"
    )
    assert numbers["copying_loss"] == pytest.approx(math.log(320), abs=0.05)
    assert abs(numbers["copying_gain"]) < 0.02 and abs(numbers["copying_gain_null"]) < 0.02


def test_intervals_are_computed_over_paragraphs(store: TokenStore) -> None:
    losses = copying_probe(store.tokenizer(), store.end_of_text, 64)(Decoder(shape_of("1x16"), 320, 64, [0]))
    later = losses.copied[:, 1:].double().mean(dim=(1, 2))
    half = student_t.ppf(0.975, 5) * later.std() / 6**0.5
    assert losses.row("x")["x_loss_ci"] == pytest.approx(float(half))


def test_fallback_sequences_are_copied_if_the_tokenizer_cannot_encode_the_paragraphs() -> None:
    tokenizer = word_tokenizer(["a", "b", "c"])
    fallback = torch.tensor([[1, 2, 3, 2, 1, 3, 3], [3, 3, 1, 2, 1, 1, 2]])
    for given in (tokenizer, None):
        probe = copying_probe(given, 0, 16, None, fallback)
        assert probe.copied.tolist() == [[0, *[1, 2, 3, 2] * 4], [0, *[3, 3, 1, 2] * 4]]
    with pytest.raises(InputError, match="copying text: the data has no tokenizer to encode it"):
        copying_probe(None, 0, 16, "a b c", fallback)
    assert token_texts(None, [7, 12]) == [" 7", " 12"]


def test_a_users_paragraphs_are_copied(store: TokenStore) -> None:
    text = "\nThe first paragraph,\n    of two lines.\n \n\nAnd the second one, which is longer than the first.\r\n"
    assert split_paragraphs(text)[0] == "The first paragraph,\n    of two lines.", (
        "line breaks and indentation belong to the paragraph"
    )
    probe = copying_probe(store.tokenizer(), store.end_of_text, 1024, text)
    assert probe.copied.shape == (2, 1 + 11 * probe.length)
    assert store.tokenizer().decode(probe.copied[0, 1 : 1 + probe.length].tolist()) == split_paragraphs(text)[0]


@pytest.mark.parametrize(
    ("words", "text", "message"),
    [
        (None, "too short", r"paragraph 1 \('too short'\): \d tokens; expected 8 or more"),
        (None, "\n \n", "copying text: no paragraphs; expected 1 to 64"),
        (None, "", "copying text: no paragraphs"),
        (None, "A paragraph of more than eight tokens.\n\n" * 65, "copying text: 65 paragraphs"),
        (["a", "b"], "a b a z a b a b a b", "paragraph 1 .*: the tokenizer cannot encode it"),
    ],
)
def test_unusable_copying_text_is_refused(words: list[str] | None, text: str, message: str, store: TokenStore) -> None:
    tokenizer = word_tokenizer(words) if words else store.tokenizer()
    with pytest.raises(InputError, match=message):
        copying_probe(tokenizer, 0, 64, text)


def test_token_texts_join_to_the_original_text(store: TokenStore) -> None:
    tokenizer = store.tokenizer()
    ids = tokenizer.encode("def café(x):\n    return x", add_special_tokens=False).ids
    assert "".join(token_texts(tokenizer, ids)).startswith("def caf") and "".join(token_texts(tokenizer, ids)).endswith(
        "return x"
    )
    words = word_tokenizer(["a", "b"])
    assert token_texts(words, words.encode("a b b").ids) == ["a", " b", " b"]
