"""Complete builds in real processes that are killed, started twice, short of disk space or given a changed corpus."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import build
from data_prep import prepare as prepare_module
from data_prep.build import JOURNAL, StoreBuilder
from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.store_writer import StoreWriter
from data_prep.token_store import MANIFEST, TokenStore
from data_prep.tokenizer import word_tokenizer


def spec_of(root: Path, **fields: Any) -> DataSpec:
    source = {"kind": "files", "paths": [str(root)]}
    return DataSpec.model_validate(
        {"source": source, "vocabulary": 300, "max_tokens": 10**9, "test_fraction": 0.2} | fields
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some packages of the standard library. A build of them takes about a second."""
    root = tmp_path_factory.mktemp("corpus")
    for package in ("email", "json", "http", "asyncio", "xml"):
        shutil.copytree(Path(os.__file__).parent / package, root / package, ignore=shutil.ignore_patterns("*.pyc"))
    return root


def test_the_same_corpus_has_the_same_fingerprint_and_an_additional_document_changes_it(
    corpus: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(corpus / "json", tmp_path / "mine"))
    first = prepare(spec_of(mine), tmp_path / "first").fingerprint
    assert prepare(spec_of(mine), tmp_path / "second").fingerprint == first
    (mine / "new.py").write_text("print('one more document')\n" * 20)
    assert prepare(spec_of(mine), tmp_path / "third").fingerprint != first


def test_the_document_that_reaches_max_tokens_is_the_last(corpus: Path, tmp_path: Path) -> None:
    full, limited = prepare(spec_of(corpus), tmp_path), prepare(spec_of(corpus, max_tokens=60_000), tmp_path)
    total = limited.train.size + limited.test.size
    longest = max(int(np.diff(limited.offsets(split)).max()) for split in ("train", "test"))
    assert 60_000 <= total < 60_000 + longest
    for split in ("train", "test"):
        names = limited.document_names(split)
        assert names == full.document_names(split)[: len(names)]
    counts = limited.manifest["corpus"]
    assert counts["read"] - counts["duplicates"] - counts["empty"] == sum(
        split["documents"] for split in limited.manifest["splits"].values()
    )


def test_an_end_of_text_token_quoted_in_a_document_does_not_end_it(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus / "json", tmp_path / "mine"))
    (mine / "quote.py").write_text("mark = '<|endoftext|>'\n" * 50)
    store = prepare(spec_of(mine), tmp_path / "data")
    ends = int((store.train == store.end_of_text).sum() + (store.test == store.end_of_text).sum())
    assert ends == sum(split["documents"] for split in store.manifest["splits"].values())


def test_an_existing_tokenizer_is_used_unchanged(corpus: Path, tmp_path: Path) -> None:
    first = prepare(spec_of(corpus / "json"), tmp_path)
    given = str(first.folder / "tokenizer.json")
    second = prepare(spec_of(corpus / "http", tokenizer=given), tmp_path)
    assert second.vocabulary == 300 and second.tokenizer().to_str() == first.tokenizer().to_str()
    with pytest.raises(InputError, match=r".<eos>. is not a special token of"):
        prepare(spec_of(corpus / "http", tokenizer=given, end_of_text="<eos>"), tmp_path)
    with pytest.raises(InputError, match="no such tokenizer file"):
        prepare(spec_of(corpus / "http", tokenizer="nowhere.json"), tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match=r"bad.json: not a tokenizer.json"):
        prepare(spec_of(corpus / "http", tokenizer=str(tmp_path / "bad.json")), tmp_path)


def test_truncation_and_padding_saved_in_a_tokenizer_are_ignored(corpus: Path, tmp_path: Path) -> None:
    plain = prepare(spec_of(corpus / "json"), tmp_path)
    tokenizer = plain.tokenizer()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64, pad_id=5)
    tokenizer.save(str(tmp_path / "saved.json"))
    store = prepare(spec_of(corpus / "json", tokenizer=str(tmp_path / "saved.json")), tmp_path)
    assert (store.train == plain.train).all() and (store.test == plain.test).all()


def test_a_vocabulary_with_gaps_keeps_its_largest_token(corpus: Path, tmp_path: Path) -> None:
    content = json.loads(prepare(spec_of(corpus / "json"), tmp_path).tokenizer().to_str())
    content["model"]["vocab"]["d"] = 70_000
    (tmp_path / "gaps.json").write_text(json.dumps(content))
    store = prepare(spec_of(corpus / "json", tokenizer=str(tmp_path / "gaps.json")), tmp_path)
    assert store.vocabulary == 70_001 and store.train.dtype == np.uint32
    assert "def " in store.tokenizer().decode(store.train[:2000].tolist())


def test_an_end_of_text_that_plain_text_can_contain_is_refused(corpus: Path, tmp_path: Path) -> None:
    path = prepare(spec_of(corpus / "json"), tmp_path).folder / "tokenizer.json"
    with pytest.raises(InputError, match="'d' is not a special token"):
        prepare(spec_of(corpus / "json", tokenizer=str(path), end_of_text="d"), tmp_path)


def test_a_tokenizer_that_cannot_encode_the_text_gives_a_one_line_error(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    word_tokenizer(["a", "b"]).save(str(path))
    with pytest.raises(InputError, match=r"data.tokenizer: cannot encode a document \(.* or a later one\)") as caught:
        prepare(spec_of(corpus / "json", tokenizer=str(path)), tmp_path)
    assert "\n" not in str(caught.value)


def test_changed_input_under_the_same_names_is_detected(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus / "json", tmp_path / "mine"))
    first = prepare(spec_of(mine), tmp_path / "data")
    (mine / "decoder.py").write_text("changed = True\n")
    with pytest.raises(InputError, match=r"its input has changed: decoder.py was \d+ bytes and is now 15 bytes"):
        prepare(spec_of(mine), tmp_path / "data")
    shutil.rmtree(mine)
    assert prepare(spec_of(mine), tmp_path / "data").fingerprint == first.fingerprint, (
        "the store may have been copied from another machine"
    )
    tokenizer = tmp_path / "tokenizer.json"
    shutil.copy(first.folder / "tokenizer.json", tokenizer)
    prepare(spec_of(corpus / "json", tokenizer=str(tokenizer)), tmp_path / "data")
    tokenizer.write_text(tokenizer.read_text() + "\n")
    with pytest.raises(InputError, match="its input has changed: tokenizer was"):
        prepare(spec_of(corpus / "json", tokenizer=str(tokenizer)), tmp_path / "data")


MODULES = ("decoder.py", "encoder.py", "scanner.py", "tool.py", "__init__.py")


def test_document_names_with_line_breaks_and_undecodable_bytes_are_stored_on_one_line(tmp_path: Path) -> None:
    rows = tmp_path / "corpus"
    rows.mkdir()
    for number, name in enumerate(["a\rb", "a\u2028b", "a\x85b", "a\nb", os.fsdecode(b"caf\xe9")]):
        shutil.copy(Path(os.__file__).parent / "json" / MODULES[number], rows / f"{name}.txt")
    store = prepare(spec_of(rows, test_fraction=0.5), tmp_path / "data")
    for split in ("train", "test"):
        assert len(store.document_names(split)) == store.manifest["splits"][split]["documents"]


def test_a_document_that_is_too_long_to_encode_counts_as_malformed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.sources.MOST_CHARACTERS", 1000)
    (tmp_path / "corpus").mkdir()
    for number in range(30):
        (tmp_path / "corpus" / f"{number}.txt").write_text(f"a text with number {number}\n" * 5)
    (tmp_path / "corpus" / "long.txt").write_text("x" * 1001)
    source = {"kind": "files", "paths": [str(tmp_path / "corpus")]}
    fields = {"vocabulary": 257, "test_fraction": 0.5}
    with pytest.raises(
        InputError, match=r"long\.txt: the document has 1001 characters, but at most 1000 .*max_bad_rows is 0"
    ):
        prepare(spec_of(tmp_path, source=source, **fields), tmp_path / "data")
    store = prepare(spec_of(tmp_path, source=source | {"max_bad_rows": 1}, **fields), tmp_path / "data")
    assert sum(split["documents"] for split in store.manifest["splits"].values()) == 30
    assert store.manifest["corpus"]["bad_named"] == [
        "long.txt: the document has 1001 characters, but at most 1000 are accepted; split it"
    ]


def test_a_synthetic_language_with_documents_that_are_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.sources.MOST_CHARACTERS", 100)
    with pytest.raises(InputError, match=r"synthetic:0: the document has \d+ characters, but at most 100 are accepted"):
        prepare(DataSpec.model_validate({"source": "synthetic", "max_tokens": 1000}), tmp_path)


@pytest.mark.parametrize("text", ["to be or not to be\n" * 500, "whether it is nobler\n" * 500, "in the mind\n" * 500])
@pytest.mark.parametrize("max_tokens", [100, 10**9])
def test_the_error_for_a_corpus_of_one_document_gives_the_reason(tmp_path: Path, text: str, max_tokens: int) -> None:
    (tmp_path / "input.txt").write_text(text)
    (tmp_path / "copy.txt").write_text(text)
    spec = spec_of(tmp_path, vocabulary=257, test_fraction=0.5, max_tokens=max_tokens)
    with pytest.raises(
        InputError, match=r"data: no (test|training) text: the corpus is a single document, .*\.jsonl file with"
    ):
        prepare(spec, tmp_path / "data")


def test_the_error_for_an_empty_split_gives_the_reason(corpus: Path, tmp_path: Path) -> None:
    for fraction, empty, other in ((1e-9, "test", "training"), (1 - 1e-9, "training", "test")):
        with pytest.raises(
            InputError, match=rf"data: no {empty} text: all \d documents are {other} text with test_fraction ="
        ):
            prepare(spec_of(corpus / "json", test_fraction=fraction), tmp_path)
    with pytest.raises(
        InputError, match=r"data: no test text: data\.max_tokens = 10 is reached after 1 documents, which are all"
    ):
        prepare(spec_of(corpus / "json", max_tokens=10, test_fraction=1e-9), tmp_path)
    with pytest.raises(
        InputError, match=r"data: no training text: test_fraction = 1 leaves no text to train a tokenizer on"
    ):
        prepare(spec_of(corpus / "json", test_fraction=1), tmp_path)


@pytest.mark.slow
def test_a_build_killed_after_it_wrote_the_manifest_is_resumed(
    corpus: Path, tmp_path: Path, uninterrupted: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = interrupted_build(corpus, tmp_path)
    before = json.loads((scratch / JOURNAL).read_text())["taken"]
    with monkeypatch.context() as patch:
        move = Path.replace
        patch.setattr(Path, "replace", lambda path, to: pytest.fail("killed") if path == scratch else move(path, to))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            prepare(spec_of(corpus), tmp_path)
    assert (scratch / MANIFEST).exists() and json.loads((scratch / JOURNAL).read_text())["taken"] >= before
    assert prepare(spec_of(corpus), tmp_path).manifest == uninterrupted.manifest


@pytest.mark.parametrize("damage", [{"splits": {}}, {"taken": "x"}, {"splits": {"train": 5}}])
def test_a_damaged_journal_gives_a_one_line_error(damage: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    journal = interrupted_build(corpus, tmp_path) / JOURNAL
    journal.write_text(json.dumps(json.loads(journal.read_text()) | damage))
    with pytest.raises(InputError, match=r"malformed; delete the folder to start again"):
        prepare(spec_of(corpus), tmp_path)


def test_a_large_vocabulary_is_stored_in_32_bits(corpus: Path, tmp_path: Path) -> None:
    tokenizer = prepare(spec_of(corpus / "json"), tmp_path).tokenizer()
    tokenizer.add_tokens([f"<extra {number}>" for number in range(70_000)])
    tokenizer.save(str(tmp_path / "large.json"))
    store = prepare(spec_of(corpus / "json", tokenizer=str(tmp_path / "large.json")), tmp_path)
    assert store.train.dtype == np.uint32 and store.vocabulary == 70_300


def test_the_synthetic_language_has_one_token_per_word(tmp_path: Path) -> None:
    fields = {"source": {"kind": "synthetic", "words": 50}, "max_tokens": 20_000, "test_fraction": 0.1}
    store = prepare(DataSpec.model_validate(fields), tmp_path)
    assert store.vocabulary == 50 + 2 + 1
    words = store.tokenizer().decode(store.train[:200].tolist(), skip_special_tokens=False).split(" ")
    assert len(words) == 200 and set(words) <= {f"w{n}" for n in range(51)} | {"=", ";", "<|endoftext|>"}


def test_an_existing_store_is_not_built_again(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(spec_of(corpus / "json"), tmp_path).fingerprint
    monkeypatch.setattr(prepare_module, "_build", lambda *_: pytest.fail("built again"))
    assert prepare(spec_of(corpus / "json"), tmp_path).fingerprint == first


def _kill_this_process(seconds: float) -> None:
    """Make this process kill itself `seconds` after it writes a journal, or at the latest instead of writing the manifest."""

    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write_and_pause(builder: StoreBuilder, writer: StoreWriter) -> None:
        write_journal(builder, writer)
        threading.Timer(seconds, kill).start()
        time.sleep(0.02)

    write_journal = StoreBuilder._write_journal
    StoreBuilder._write_journal = write_and_pause  # type: ignore[method-assign]
    build.write_manifest = kill


def _prepare_in_child(root: Path, data_dir: Path, result: Path, kill_after: float | None) -> None:
    build.JOURNAL_SECONDS = 0.0
    if kill_after is not None:
        _kill_this_process(kill_after)
    stages: list[str] = []
    # With small batches, a small corpus takes many of them, and the build can be killed between any two.
    import data_prep.encoding

    data_prep.encoding.BATCH_CHARACTERS = 20_000
    store = prepare(spec_of(root), data_dir, lambda stage, share: stages.append(stage))
    result.write_text(json.dumps([store.fingerprint, "tokenizing" in stages]))


def child_of(corpus: Path, data_dir: Path, result: str = "result", kill_after: float | None = None) -> Any:
    data_dir.mkdir(exist_ok=True)
    arguments = (corpus, data_dir, data_dir / result, kill_after)
    child = multiprocessing.get_context("spawn").Process(target=_prepare_in_child, args=arguments)
    child.start()
    return child


def test_two_processes_build_the_store_only_once(corpus: Path, tmp_path: Path) -> None:
    children = [child_of(corpus, tmp_path, name) for name in ("first", "second")]
    for child in children:
        child.join()
    results = [json.loads((tmp_path / name).read_text()) for name in ("first", "second")]
    assert len({fingerprint for fingerprint, _ in results}) == 1
    assert sorted(built for _, built in results) == [False, True]


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return prepare(spec_of(corpus), tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.slow
def test_a_build_killed_repeatedly_gives_the_same_store(
    corpus: Path, tmp_path: Path, uninterrupted: TokenStore
) -> None:
    rng = random.Random(0)
    scratch = tmp_path / f".{uninterrupted.folder.name}.building"
    written = []
    for _ in range(4):
        child = child_of(corpus, tmp_path, kill_after=rng.random() * 0.05)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        written.append(json.loads((scratch / JOURNAL).read_text())["taken"])
    assert written == sorted(written) and written[-1] > written[0], "each build resumes the previous one"
    store = prepare(spec_of(corpus), tmp_path)
    assert store.fingerprint == uninterrupted.fingerprint
    assert {key: value for key, value in store.manifest.items()} == uninterrupted.manifest
    assert not scratch.exists()


def test_a_build_killed_before_its_first_journal_starts_again(
    corpus: Path, tmp_path: Path, uninterrupted: TokenStore
) -> None:
    scratch = tmp_path / f".{uninterrupted.folder.name}.building"
    scratch.mkdir()
    (scratch / "train.tokens").write_bytes(b"half a tok")
    (scratch / "tokenizer.json").write_text("{")
    assert prepare(spec_of(corpus), tmp_path).fingerprint == uninterrupted.fingerprint


def interrupted_build(corpus: Path, tmp_path: Path) -> Path:
    child = child_of(corpus, tmp_path, kill_after=0.0)
    child.join()
    scratch = tmp_path / f".{spec_of(corpus).store_name}.building"
    assert not (tmp_path / spec_of(corpus).store_name).exists()
    return scratch


def test_a_corpus_that_changed_during_an_interruption_is_detected(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "mine"))
    scratch = interrupted_build(mine, tmp_path / "data")
    first = min(mine.rglob("*.py"))
    first.write_text(first.read_text() + "# changed\n")
    with pytest.raises(InputError, match=rf"{first} has changed since it was encoded for this build"):
        prepare(spec_of(mine), tmp_path / "data")
    assert (scratch / JOURNAL).exists()


@pytest.mark.parametrize("limit", [1000, 200_000], ids=["while the tokenizer is saved", "while tokens are written"])
def test_a_full_disk_gives_a_one_line_error_and_the_build_can_be_resumed(
    corpus: Path, tmp_path: Path, uninterrupted: TokenStore, limit: int
) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit raises an error
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        with pytest.raises(
            InputError, match=r"cannot be written: File too large; free some space and run again"
        ) as caught:
            prepare(spec_of(corpus), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / uninterrupted.folder.name).exists()
    assert prepare(spec_of(corpus), tmp_path).fingerprint == uninterrupted.fingerprint


def test_a_corpus_too_small_for_the_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for number in range(20):
        (tmp_path / "corpus" / f"{number}.py").write_text(f"x = {number}\n")
    with pytest.raises(InputError, match=r"data.vocabulary: 5000 tokens requested"):
        prepare(spec_of(tmp_path / "corpus", vocabulary=5000), tmp_path / "data")
    assert not list((tmp_path / "data").glob("*files*/"))


def test_dropped_documents_are_counted_even_after_the_last_one_kept(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus / "json", tmp_path / "mine"))
    (mine / "zz_copy.py").write_bytes((mine / "decoder.py").read_bytes())
    (mine / "zz_empty.txt").touch()
    (mine / "zz_latin.txt").write_bytes(b"caf\xe9")
    spec = spec_of(mine, source={"kind": "files", "paths": [str(mine)], "max_bad_rows": 1})
    counts = prepare(spec, tmp_path / "data").manifest["corpus"]
    assert (counts["duplicates"], counts["empty"], counts["bad"]) == (1, 1, 1)
    strict = spec_of(mine, source={"kind": "files", "paths": [str(mine)], "max_bad_rows": 0})
    with pytest.raises(
        InputError, match=r"malformed rows skipped during its build: 1 \(first: .*zz_latin.txt: not UTF-8"
    ):
        prepare(strict, tmp_path / "data")
    assert counts["bad_named"] == [f"{mine}/zz_latin.txt: not UTF-8 (byte 0xe9 at 3)"]


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "empty.txt").touch()
    with pytest.raises(InputError, match=r"no text for the training split \(documents read: 1; empty: 1;"):
        prepare(spec_of(tmp_path / "corpus"), tmp_path / "data")


def test_a_data_folder_that_cannot_exist_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "a\0b", tmp_path / "file" / "data"):
        with pytest.raises(
            InputError, match=r"cannot be used as the data folder: (embedded null byte|Not a directory)"
        ):
            prepare(spec_of(corpus), folder)


def test_an_existing_folder_that_is_not_a_store_is_left_untouched(corpus: Path, tmp_path: Path) -> None:
    mine = tmp_path / spec_of(corpus).store_name / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(InputError, match="is not a token store"):
        prepare(spec_of(corpus), tmp_path)
    assert mine.read_text() == "precious"


def test_only_a_full_disk_is_answered_with_the_advice_to_free_space(corpus: Path, tmp_path: Path) -> None:
    spec = spec_of(corpus)
    (tmp_path / f".{spec.store_name}.building").write_text("not a folder")
    with pytest.raises(InputError, match=r"building: cannot be written: File exists$"):
        prepare(spec, tmp_path)
