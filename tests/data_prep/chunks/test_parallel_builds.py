"""A store does not depend on how many processes build it, nor on when they are killed."""

import gzip
import hashlib
import json
import multiprocessing
import random
import shutil
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_prep.chunks import encoder, local_pool, plan
from data_prep.chunks.ledger import Ledger
from data_prep.chunks.plan import Plan, make_plan
from data_prep.chunks.worker import encode_chunks
from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from tests.data_prep.chunks.planted import KINDS, MAX_TOKENS
from tests.waiting import wait_until

Fields = dict[str, dict[str, Any]]
# Checksums of stores that were built before sources were divided into chunks: up to MAX_TOKENS, and of all text.
RECORDED = {
    "python": ("2c128d7f665ef290", "3ddfaaa801c2a9be"),
    "jsonl": ("6031e8353f66e874", "bcd621a15acc5743"),
    "parquet": ("3aaeeb41d7b0b030", "1fa2dcc9ead16777"),
    "dataset": ("e361897c352695b0", "606d38da5f6d5341"),
}


def checksum(store: TokenStore) -> str:
    """Checksum of all files and counts, except the tokenizer, whose format depends on the library."""
    manifest = store.manifest
    files = {name: digest for name, digest in manifest["sha256"].items() if name != "tokenizer.json"}
    content = json.dumps([files, manifest["splits"], manifest["corpus"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_does_not_depend_on_the_number_of_processes(
    kind: str, corpora: Fields, small_chunks: None, tmp_path: Path
) -> None:
    specs = [DataSpec.model_validate(corpora[kind] | {"max_tokens": tokens}) for tokens in (MAX_TOKENS, 10**9)]
    alone = [prepare(spec, tmp_path / "1") for spec in specs]
    assert tuple(map(checksum, alone)) == RECORDED[kind]
    for processes in (2, 3, 7):
        for spec, store in zip(specs, alone, strict=True):
            assert prepare(spec, tmp_path / str(processes), processes=processes).manifest == store.manifest
    assert not list(tmp_path.glob("*/.*.chunks"))


def test_the_last_document_is_in_the_middle_of_a_chunk(corpora: Fields, small_chunks: None, tmp_path: Path) -> None:
    spec = DataSpec.model_validate(corpora["jsonl"])
    divided = make_plan(spec, tmp_path)
    assert encode_chunks(spec, tmp_path, divided, all_cores=False)
    ledger = Ledger(spec, tmp_path, divided)
    ledger.advance()
    assert 3 < ledger.next < len(divided.chunks) and not ledger.record(ledger.next).ended, "no chunk is read ahead"
    assert ledger.record(ledger.next).tokens > 0


def test_more_chunks_are_encoded_if_most_documents_are_copies(small_chunks: None, tmp_path: Path) -> None:
    rows = [f"row {number % 20} of a text that is repeated" for number in range(2000)] + [
        f"text {n}" for n in range(500)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    fields = {
        "source": {"kind": "files", "paths": [str(tmp_path / "a.jsonl")]},
        "vocabulary": 257,
        "test_fraction": 0.2,
    }
    spec = DataSpec.model_validate(fields | {"max_tokens": 2000})
    store = prepare(spec, tmp_path / "data", processes=3)
    assert 2000 <= store.train.size + store.test.size < 2010
    assert store.manifest["corpus"]["duplicates"] == 1980


def bad_corpus(folder: Path, bad: dict[int, str]) -> DataSpec:
    """A JSONL file of 300 rows with these bad rows, and one truncated file after it."""
    rows = [bad.get(number, json.dumps({"text": f"{number} " * 30})) for number in range(1, 301)]
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "b.jsonl.gz").write_bytes(b"\x1f\x8b")
    source = {"kind": "files", "paths": [str(folder)], "max_bad_rows": 2}
    fields = {"source": source, "vocabulary": 257, "test_fraction": 0.2, "max_tokens": 10**9}
    return DataSpec.model_validate(fields)


@pytest.fixture
def tokenizer(tmp_path: Path, corpora: Fields) -> str:
    """A tokenizer file, so that no build reads the corpus to train one."""
    store = prepare(DataSpec.model_validate(corpora["parquet"]), tmp_path / "first")
    return str(store.folder / "tokenizer.json")


def test_a_damaged_file_stops_the_build_and_the_work_before_it_is_kept(
    small_chunks: None, tokenizer: str, tmp_path: Path
) -> None:
    spec = bad_corpus(tmp_path / "corpus", {}).model_copy(update={"tokenizer": tokenizer})
    for processes in (1, 3):
        with pytest.raises(InputError, match=r"/b\.jsonl\.gz: cannot be read: [^\n]*$"):
            prepare(spec, tmp_path / "data", processes=processes)
    folder = spec.chunks_folder(tmp_path / "data")
    records = sorted(folder.glob("*.json"))[:-1]
    encoded = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(records) > 5 and len(encoded) > 5
    limited = prepare(spec.model_copy(update={"max_tokens": 9000}), tmp_path / "data", processes=3)
    assert limited.train.size, "the damaged file comes after enough tokens"


@pytest.mark.parametrize("repaired", [True, False])
@pytest.mark.parametrize("name", ["b.jsonl.gz", "b.jsonl"])
def test_after_a_file_is_repaired_or_removed_the_build_keeps_the_text_of_the_other_files(
    name: str, repaired: bool, small_chunks: None, tokenizer: str, tmp_path: Path
) -> None:
    """The damaged file is in the middle: truncated, or with bad rows at its end. It has more chunks after its repair."""
    corpus = tmp_path / "corpus"
    spec = bad_corpus(corpus, {}).model_copy(update={"tokenizer": tokenizer})
    (corpus / "b.jsonl.gz").unlink()
    content = b"".join(b'{"text": "%x"}\n' % (3**number) for number in range(300))
    damaged = content[:12_000] + b"{\n" * 3
    if name.endswith(".gz"):
        content = gzip.compress(content)
        damaged = content[: len(content) * 3 // 4]
    (corpus / name).write_bytes(damaged)
    (corpus / "c.jsonl").write_text((corpus / "a.jsonl").read_text().replace("1", "one"))
    for processes in (3, 1):
        with pytest.raises(InputError, match=rf"/{name}:? ?.*(cannot be read|bad rows so far: 3)"):
            prepare(spec, tmp_path / "data", processes=processes)
    folder = spec.chunks_folder(tmp_path / "data")
    before = Plan.load(folder)
    encoded = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    of_b = {f"{id_:06}" for id_, chunk in zip(before.ids, before.chunks, strict=True) if name in str(chunk.files)}
    assert len(of_b) > 1 and (name.endswith(".gz") or of_b & {path[:6] for path in encoded})
    (corpus / name).unlink()
    if repaired:
        (corpus / name).write_bytes(content)
    make_plan(spec, tmp_path / "data")
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert after == {path: time_ns for path, time_ns in encoded.items() if path[:6] not in of_b} and len(after) > 5
    fresh = prepare(spec, tmp_path / "fresh")
    assert prepare(spec, tmp_path / "data", processes=2).manifest == fresh.manifest


def test_a_file_that_changes_after_it_was_encoded_is_refused_with_its_name(
    small_chunks: None, tokenizer: str, tmp_path: Path
) -> None:
    spec = bad_corpus(tmp_path / "corpus", {}).model_copy(update={"tokenizer": tokenizer})
    with pytest.raises(InputError, match="cannot be read"):
        prepare(spec, tmp_path / "data")
    path = tmp_path / "corpus" / "a.jsonl"
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(
        InputError, match=rf"{path} has changed since it was encoded [^\n]*; delete the folder to start"
    ):
        prepare(spec, tmp_path / "data")
    path.unlink()
    (tmp_path / "corpus" / "b.jsonl.gz").unlink()
    (tmp_path / "corpus" / "c.txt").write_text("text")
    with pytest.raises(InputError, match=rf"{path} is missing since it was encoded"):
        prepare(spec, tmp_path / "data")


def test_a_change_in_the_text_that_trained_the_tokenizer_is_refused(small_chunks: None, tmp_path: Path) -> None:
    spec = bad_corpus(tmp_path / "corpus", {}).model_copy(update={"vocabulary": 300})
    path = tmp_path / "corpus" / "b.jsonl.gz"
    path.unlink()
    make_plan(spec, tmp_path / "data")
    path.write_bytes(gzip.compress(json.dumps({"text": "other words " * 300}).encode()))
    with pytest.raises(
        InputError, match="the text that it is trained on, has changed since this build was interrupted"
    ):
        prepare(spec, tmp_path / "data")


def test_processes_that_start_together_list_the_corpus_once(
    corpora: Fields, small_chunks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec.model_validate(corpora["jsonl"])
    first_plan, calls = plan._first_plan, []

    def slow(*arguments: Any) -> Plan:
        calls.append(arguments)
        time.sleep(0.2)  # the other threads wait for the lock
        return first_plan(*arguments)

    monkeypatch.setattr(plan, "_first_plan", slow)
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda _: plan.existing_plan(spec, tmp_path), range(4)))
    assert len(calls) == 1 and plans == [plans[0]] * 4


def test_the_row_that_exceeds_the_limit_is_named_whichever_process_reads_it(
    small_chunks: None, tokenizer: str, tmp_path: Path
) -> None:
    bad = {150: "{", 200: "{", 250: '"no object"', 251: "{", 299: "{"}
    spec = bad_corpus(tmp_path / "corpus", bad).model_copy(update={"tokenizer": tokenizer})
    for processes in (1, 3):
        with pytest.raises(InputError, match=r"a\.jsonl:250: expected a JSON object, found str; bad rows so far: 3,"):
            prepare(spec, tmp_path / "data", processes=processes)
    store = prepare(spec.model_copy(update={"max_tokens": 9000}), tmp_path / "data", processes=3)
    assert store.manifest["corpus"]["bad"] == 0
    (tmp_path / "corpus" / "b.jsonl.gz").unlink()
    more = spec.model_copy(update={"source": spec.source.model_copy(update={"max_bad_rows": 5})})
    shutil.rmtree(spec.chunks_folder(tmp_path / "data"))
    corpus = prepare(more, tmp_path / "data", processes=3).manifest["corpus"]
    assert [row.split(": ")[0].rpartition("/")[2] for row in corpus["bad_named"]] == [f"a.jsonl:{row}" for row in bad]


def test_a_higher_limit_continues_the_build(small_chunks: None, tokenizer: str, tmp_path: Path) -> None:
    spec = bad_corpus(tmp_path / "corpus", dict.fromkeys(range(100, 110), "{")).model_copy(
        update={"tokenizer": tokenizer}
    )
    (tmp_path / "corpus" / "b.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"a\.jsonl:102: not JSON .*; bad rows so far: 3,"):
        prepare(spec, tmp_path / "data")
    more = spec.model_copy(update={"source": spec.source.model_copy(update={"max_bad_rows": 10})})
    corpus = prepare(more, tmp_path / "data").manifest["corpus"]
    assert (corpus["read"], corpus["bad"]) == (300, 10)


def test_an_error_names_the_row_of_the_file_and_not_of_the_chunk(
    small_chunks: None, tokenizer: str, tmp_path: Path
) -> None:
    content = json.loads(Path(tokenizer).read_text())
    content["model"]["vocab"].pop("Ġ")  # a tokenizer that loses spaces
    content["model"]["merges"] = []
    content["pre_tokenizer"]["use_regex"] = False
    path = tmp_path / "lossy.json"
    path.write_text(json.dumps(content))
    spec = bad_corpus(tmp_path / "corpus", {270: json.dumps({"text": "\u3000 !"})}).model_copy(
        update={"tokenizer": str(path)}
    )
    (tmp_path / "corpus" / "b.jsonl.gz").unlink()
    content["model"]["vocab"] = {
        key: value for key, value in content["model"]["vocab"].items() if key.isascii() and key != "!"
    }
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a\.jsonl:270: the tokenizer drops all of its text"):
        prepare(spec, tmp_path / "data", processes=2)


def test_a_build_that_does_not_fit_on_the_disk_is_refused_before_it_starts(
    corpora: Fields, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(
        InputError, match=r"0\.0 GB free, but building the store needs about 0\.0 GB; free some space, choose"
    ):
        prepare(DataSpec.model_validate(corpora["jsonl"]), tmp_path)
    assert not list(tmp_path.glob(".*.chunks"))


def test_a_damaged_segment_gives_a_one_line_error(corpora: Fields, small_chunks: None, tmp_path: Path) -> None:
    spec = DataSpec.model_validate(corpora["jsonl"])
    encode_chunks(spec, tmp_path, make_plan(spec, tmp_path), all_cores=False)
    path = spec.chunks_folder(tmp_path) / "000003-000.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"000003-000\.npz: damaged \([^\n]*delete the folder [^\n]* to start again$"):
        prepare(spec, tmp_path)


def test_a_segment_that_is_replaced_after_duplicates_were_dropped_gives_a_one_line_error(
    corpora: Fields, small_chunks: None, tmp_path: Path
) -> None:
    spec = DataSpec.model_validate(corpora["jsonl"])
    encode_chunks(spec, tmp_path, make_plan(spec, tmp_path), all_cores=False)
    folder = spec.chunks_folder(tmp_path)
    shutil.copy(folder / "000001-000.npz", folder / "000003-000.npz")
    with pytest.raises(InputError, match=r"000003-000\.npz: has been written again [^\n]* to start again$"):
        prepare(spec, tmp_path)


def _encode_slowly(spec: DataSpec, data_dir: Path, plan_: Plan) -> None:
    encoder.SEGMENT_SECONDS = 0.0
    encoder.encode = slow_batches  # type: ignore[assignment]
    encode_chunks(spec, data_dir, plan_, all_cores=False)


def slow_batches(tokenizer: Any, documents: Any, all_cores: bool) -> Any:
    """Batches of a few documents, with pauses in which the process can be killed."""
    import data_prep.encoding

    data_prep.encoding.ONE_CORE_CHARACTERS = 700
    for batch in data_prep.encoding.encode(tokenizer, documents, all_cores):
        time.sleep(0.01)
        yield batch


@pytest.mark.slow
def test_processes_that_are_killed_at_random_moments_build_the_same_store(
    corpora: Fields, small_chunks: None, tmp_path: Path
) -> None:
    spec = DataSpec.model_validate(corpora["jsonl"] | {"max_tokens": 10**9})
    undisturbed = prepare(spec, tmp_path / "undisturbed")
    rng, kills = random.Random(0), 0
    for build in range(10):  # the first has about fifty kills; on a busy machine, it may end after a few
        data_dir = tmp_path / str(build)
        kills += _kill_workers_until_settled(spec, data_dir, rng)
        assert prepare(spec, data_dir).manifest == undisturbed.manifest
        if kills >= 10:
            break
    assert kills >= 10


def _kill_workers_until_settled(spec: DataSpec, data_dir: Path, rng: random.Random) -> int:
    """Encode with three processes, and kill one whenever a segment was written. Returns the number of kills."""
    data_dir.mkdir()
    divided, kills = make_plan(spec, data_dir), 0
    settled = Ledger(spec, data_dir, divided)
    workers: list[Any] = []
    while not settled.is_settled:
        while len(workers) < 3:
            process = local_pool.PROCESSES.Process(target=_encode_slowly, args=(spec, data_dir, divided))
            process.start()
            workers.append(process)
        segments = len(list(settled.folder.glob("*.npz")))
        wait_until(lambda before=segments: len(list(settled.folder.glob("*.npz"))) > before or settled.is_settled)
        time.sleep(rng.random() * 0.03)
        process = workers.pop(rng.randrange(3))
        kills += process.is_alive()
        process.kill()  # unlike os.kill, it accepts a process that has ended in the meantime
        process.join()
    for process in workers:
        process.join()
    return kills


@pytest.mark.slow
def test_worker_processes_end_with_the_process_that_started_them_and_are_replaced_if_killed(
    corpora: Fields, small_chunks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec.model_validate(corpora["parquet"] | {"max_tokens": 10**9})
    killed: list[int] = []

    def kill_one(ledger: Ledger) -> None:
        child = next(iter(multiprocessing.active_children()), None)
        if child and not killed:
            killed.append(child.pid or 0)
            child.kill()

    (tmp_path / "data").mkdir()
    divided = make_plan(spec, tmp_path / "data")
    local_pool.encode_with_processes(spec, tmp_path / "data", divided, 2, kill_one)
    assert killed and Ledger(spec, tmp_path / "data", divided).is_settled
    assert plan.make_plan(spec, tmp_path / "data") == divided
