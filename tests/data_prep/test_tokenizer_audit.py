"""Stores built with an existing tokenizer: special tokens in text, lost text and random encodings."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from data_prep.tokenizer_audit import _visible, visible_characters
from tests.data_prep.test_build import spec_of

ENGLISH = [f"the {n} quick brown foxes jump over the lazy dogs in row {n * 7}; they're far away" for n in range(200)]
RUSSIAN = [f"съешь ещё {n} этих мягких французских булок" for n in range(200)]
SPECIAL = ["</s>", "<pad>", "<unk>"]


def unigram(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def character_bpe(texts: Iterable[str]) -> Tokenizer:
    """A BPE without a token for unknown text: it drops the characters that it does not know."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    )
    return tokenizer


def word_piece(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer like BERT's: it removes case and accents, maps unknown words to one token and has no decoder."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_bpe(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Build:
    """Builds a store of texts with a tokenizer, and keeps the lines that `prepare` prints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def __call__(self, tokenizer: Tokenizer | str, texts: list[str], data: str = "data", **fields: Any) -> TokenStore:
        (self.folder / "corpus").mkdir(exist_ok=True)
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (self.folder / "corpus" / "a.jsonl").write_text(rows)
        content = tokenizer if isinstance(tokenizer, str) else tokenizer.to_str()
        path = self.folder / "tokenizer.json"
        path.write_text(content, encoding="utf-8")
        tokenizer_fields = {"tokenizer": str(path), "end_of_text": "</s>"} | fields
        spec = spec_of(self.folder / "corpus", **tokenizer_fields)
        return prepare(spec, self.folder / data, lambda stage, share: self.lines.append(stage))


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def ends_and_documents(store: TokenStore) -> tuple[int, int]:
    ends = sum(int((tokens == store.end_of_text).sum()) for tokens in (store.train, store.test))
    return ends, sum(split["documents"] for split in store.manifest["splits"].values())


@pytest.mark.parametrize("token", ["</s>", "<pad>"])
def test_a_special_token_inside_a_document_is_refused(build: Build, token: str) -> None:
    texts = [*ENGLISH, f"<s>500{token} watchers"]
    with pytest.raises(
        InputError, match=rf"data\.tokenizer: a\.jsonl:201: .* special token '{token}'; remove"
    ) as refused:
        build(unigram(texts), texts)
    assert "\n" not in str(refused.value)
    assert not list(build.folder.glob("data/*files*/"))


def test_a_byte_level_tokenizer_encodes_a_quoted_end_of_text_as_ordinary_text(build: Build) -> None:
    store = build(byte_bpe(ENGLISH), [*ENGLISH, "a </s> b"])
    ends, documents = ends_and_documents(store)
    assert ends == documents == 201
    assert store.manifest["text_loss"]["lost"] == 0
    assert "tokenizer: no text is lost or unknown" in build.lines


def test_a_document_that_the_tokenizer_drops_entirely_is_refused(build: Build) -> None:
    with pytest.raises(
        InputError, match=r"a\.jsonl:201: the tokenizer drops all of its text, which begins with 'съешь ещё"
    ):
        build(character_bpe(ENGLISH), [*ENGLISH, RUSSIAN[0].replace("0", "")])


def test_dropped_text_is_refused_above_one_percent(build: Build) -> None:
    texts = [text + " ещё" if number % 4 == 0 else text for number, text in enumerate(ENGLISH)]
    with pytest.raises(
        InputError, match=r"data\.tokenizer: 150 of [\d,]+ visible .*50 documents \(first: a\.jsonl:1\); at most 1%"
    ):
        build(character_bpe(ENGLISH), texts)


def test_a_little_dropped_text_is_counted(build: Build) -> None:
    loss = build(character_bpe(ENGLISH), [*ENGLISH[:10], ENGLISH[10] + " ещё", *ENGLISH[11:]]).manifest["text_loss"]
    assert (loss["lost"], loss["unknown"], loss["documents"], loss["first"]) == (3, 0, 1, "a.jsonl:11")
    assert any(line.startswith("tokenizer: 3 of 1") and "(first: a.jsonl:11)" in line for line in build.lines)


@pytest.mark.parametrize("make", [unigram, word_piece])
def test_unknown_text_is_counted_and_refused_above_one_percent(build: Build, make: Any) -> None:
    tokenizer = make(ENGLISH)
    loss = build(tokenizer, [*ENGLISH, "the мир"]).manifest["text_loss"]
    assert (loss["lost"], loss["documents"], loss["first"]) == (3, 1, "a.jsonl:201") and loss["unknown"] >= 1
    with pytest.raises(
        InputError, match=r"unknown tokens, in 200 documents \(first: a\.jsonl:201\); at most 1% is accepted"
    ):
        build(tokenizer, [*ENGLISH, *RUSSIAN], data="other")


def test_a_large_loss_stops_the_build_before_its_end(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.tokenizer_audit.ENOUGH_CHARACTERS", 1000)
    monkeypatch.setattr("data_prep.encoding.BATCH_CHARACTERS", 1000)
    with pytest.raises(InputError, match=r"of 1,\d\d\d visible characters lost .* at most 1% is accepted"):
        build(unigram(ENGLISH), [*RUSSIAN, *ENGLISH])


def test_changes_of_case_accents_and_spaces_do_not_count_as_loss(build: Build) -> None:
    texts = [*ENGLISH, "The  Café\tis naïve", "e\u0301te\u0301", "\u200bquick\u00ad"]
    accented = [*ENGLISH, "cafe naive ete"]
    assert build(word_piece(accented), texts).manifest["text_loss"]["lost"] == 0


def test_bytes_that_a_byte_level_tokenizer_does_not_know_are_lost(build: Build) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ENGLISH, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    )
    with pytest.raises(InputError, match=r"lost or unknown .* in 200 documents"):
        build(tokenizer, [f"{english} {russian}" for english, russian in zip(ENGLISH, RUSSIAN, strict=True)])


def test_a_byte_level_tokenizer_without_a_decoder_loses_nothing(build: Build) -> None:
    content = json.loads(byte_bpe(ENGLISH).to_str())
    content["decoder"] = None
    assert build(json.dumps(content), [*ENGLISH, *RUSSIAN]).manifest["text_loss"]["lost"] == 0


def test_dropout_is_switched_off(build: Build) -> None:
    content = json.loads(byte_bpe(ENGLISH).to_str())
    plain = build(json.dumps(content), ENGLISH)
    content["model"]["dropout"] = 0.5
    with_dropout = build(json.dumps(content), ENGLISH, data="other")
    assert with_dropout.fingerprint == plain.fingerprint
    assert len({tuple(with_dropout.tokenizer().encode(ENGLISH[0]).ids) for _ in range(20)}) == 1


def test_a_random_tokenizer_is_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(byte_bpe(ENGLISH).to_str())
    content["model"]["dropout"] = 0.5
    for module in ("plan", "encoder"):
        monkeypatch.setattr(
            f"data_prep.chunks.{module}.load_tokenizer", lambda path: Tokenizer.from_file(os.fspath(path))
        )
    with pytest.raises(
        InputError, match=r"data\.tokenizer: the same text \(a\.jsonl:1\) is encoded differently each time"
    ):
        build(json.dumps(content), ENGLISH)


def test_unknown_text_that_would_become_the_end_of_text_is_refused(build: Build) -> None:
    content = json.loads(character_bpe(ENGLISH).to_str())
    content["model"]["unk_token"] = "</s>"
    with pytest.raises(InputError, match=r"a\.jsonl:201: part of its text is encoded as the special token '</s>'"):
        build(json.dumps(content), [*ENGLISH, "the мир"])


def test_a_byte_order_mark_before_the_tokenizer_is_dropped(build: Build) -> None:
    assert build("\ufeff" + byte_bpe(ENGLISH).to_str(), ENGLISH).vocabulary == byte_bpe(ENGLISH).get_vocab_size()


def test_the_tokenizer_of_another_store_is_checked_too(build: Build, tmp_path: Path) -> None:
    first = build(unigram(ENGLISH), ENGLISH)
    (tmp_path / "russian").mkdir()
    for number, text in enumerate(RUSSIAN):
        (tmp_path / "russian" / f"{number}.txt").write_text(text)
    other = {"tokenizer_of": first.manifest["built_from"], "end_of_text": "</s>"}
    with pytest.raises(InputError, match=r"lost or unknown .* at most 1% is accepted"):
        prepare(spec_of(tmp_path / "russian", **other), tmp_path / "data")


def test_a_tokenizer_path_that_cannot_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"data\.tokenizer: 'a\\x00b' contains a NUL character"):
        prepare(spec_of(tmp_path, tokenizer="a\0b"), tmp_path / "data")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["no such user"])
    with pytest.raises(InputError, match=r"^~/tok\.json: the home folder of ~ is unknown \(data\.tokenizer\)"):
        prepare(spec_of(tmp_path, tokenizer="~/tok.json"), tmp_path / "data")


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("Ångström \u212b ﬁ ß İ \u0345\u1fb7 ▁ \u200b \u00a0 ⅷ ㍍ \uac01 e\u0301 \x7f\x00")
def test_visible_characters_are_counted_one_by_one(text: str) -> None:
    assert visible_characters(text) == _visible(text).total()
