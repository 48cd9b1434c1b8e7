import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from data_prep import build
from data_prep.build import DataSpec, prepare
from data_prep.errors import InputError
from data_prep.token_store import TokenStore

SPEC = DataSpec(vocabulary=300, max_tokens=150_000, test_fraction=0.2)


@pytest.fixture
def small_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some of the standard library, so that a build takes a second."""
    root = tmp_path / "corpus"
    shutil.copytree(Path(os.__file__).parent / "email", root / "email")
    shutil.copytree(Path(os.__file__).parent / "json", root / "json")
    monkeypatch.setattr("data_prep.corpora.installed_python_roots", lambda: [root])
    return root


def test_two_builds_of_one_corpus_have_one_fingerprint(small_corpus: Path, tmp_path: Path) -> None:
    one = prepare(SPEC, tmp_path / "one").fingerprint
    for number, path in enumerate(sorted(small_corpus.rglob("*.py"))):
        path.rename(path.with_name(f"renamed{number}.py"))
    assert prepare(SPEC, tmp_path / "two").fingerprint == one
    (small_corpus / "new.py").write_text("print('one more document')\n" * 20)
    assert prepare(SPEC, tmp_path / "three").fingerprint != one


def test_the_last_document_is_the_one_that_crosses_max_tokens(small_corpus: Path, tmp_path: Path) -> None:
    store = prepare(SPEC, tmp_path / "data")
    total = store.train.size + store.test.size
    last = max(
        int(split.size - offsets[-2])
        for split, offsets in (
            (store.train, _offsets(store, "train")),
            (store.test, _offsets(store, "test")),
        )
    )
    assert SPEC.max_tokens <= total < SPEC.max_tokens + last


def _offsets(store: TokenStore, split: str) -> list[int]:
    import numpy as np

    return np.fromfile(store.folder / f"{split}.offsets", np.int64).tolist()


def test_a_quoted_end_of_text_is_plain_text(small_corpus: Path, tmp_path: Path) -> None:
    (small_corpus / "quote.py").write_text("mark = '<|endoftext|>'\n" * 50)
    store = prepare(SPEC.model_copy(update={"max_tokens": 10**9}), tmp_path / "data")
    ends = int((store.train == store.end_of_text).sum() + (store.test == store.end_of_text).sum())
    assert ends == sum(split["documents"] for split in store.manifest["splits"].values())


def test_a_standing_store_is_not_built_again(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(SPEC, tmp_path / "data").fingerprint
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("built again"))
    assert prepare(SPEC, tmp_path / "data").fingerprint == first


def _prepare_in_child(root: Path, data_dir: Path, results: "multiprocessing.Queue[tuple[str, bool]]") -> None:
    import data_prep.corpora

    data_prep.corpora.installed_python_roots = lambda: [root]
    built = []
    original = build._build

    def counting(*arguments: object) -> None:
        built.append(True)
        original(*arguments)  # type: ignore[arg-type]

    build._build = counting
    results.put((prepare(SPEC, data_dir).fingerprint, bool(built)))


def test_two_processes_build_once(small_corpus: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [
        context.Process(target=_prepare_in_child, args=(small_corpus, tmp_path / "data", results)) for _ in range(2)
    ]
    for child in children:
        child.start()
    (one, built_one), (other, built_other) = (results.get(timeout=120) for _ in children)
    for child in children:
        child.join()
    assert one == other and built_one != built_other


def test_a_killed_build_leaves_no_store_and_the_next_one_succeeds(small_corpus: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    expected = prepare(SPEC, tmp_path / "undisturbed").fingerprint
    results = context.Queue()
    child = context.Process(target=_prepare_in_child, args=(small_corpus, tmp_path / "data", results))
    child.start()
    scratch = tmp_path / "data" / f".{SPEC.store_name}.building"
    while not (scratch / "train.tokens").exists() and child.is_alive():
        time.sleep(0.001)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert not (tmp_path / "data" / SPEC.store_name).exists()
    assert prepare(SPEC, tmp_path / "data").fingerprint == expected
    assert not scratch.exists()


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing past the limit then fails with an error
    try:
        monkeypatch.setattr(Tokenizer, "save", lambda self, path: Path(path).write_text("{}"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
        with pytest.raises(InputError, match="cannot be written: File too large"):
            prepare(SPEC, tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [f".{SPEC.store_name}.lock"]


def test_a_corpus_too_small_for_the_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus").mkdir()
    for number in range(20):
        (tmp_path / "corpus" / f"{number}.py").write_text(f"x = {number}\n")
    monkeypatch.setattr("data_prep.corpora.installed_python_roots", lambda: [tmp_path / "corpus"])
    with pytest.raises(InputError, match=r"data.vocabulary: 5000 tokens asked for"):
        prepare(DataSpec(vocabulary=5000, max_tokens=1000), tmp_path / "data")
    assert not list((tmp_path / "data").glob("installed*"))


def test_a_folder_in_the_way_is_not_touched(small_corpus: Path, tmp_path: Path) -> None:
    mine = tmp_path / "data" / SPEC.store_name / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(InputError, match="is no token store"):
        prepare(SPEC, tmp_path / "data")
    assert mine.read_text() == "precious"
