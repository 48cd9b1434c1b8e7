"""A small token store of real text, and a study that trains in seconds, for all tests."""

import multiprocessing
import os
import subprocess
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # with small tensors, competing threads slow each other down

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from data_prep.data_spec import DataSpec
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.local import workers
from tests.command import CHILD, STUDY, toml

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a busy machine can exceed any deadline
settings.load_profile("untimed")


# Tests on a SLURM cluster mostly wait, so they start first. The files of a group share a cluster and run one after another,
# because every job imports torch, and too many simultaneous jobs would exceed the tests' time limits.
SLURM_GROUPS = (
    ("tests/slurm/test_jobs.py", "tests/slurm/test_disturbances.py", "tests/slurm/test_preparation.py"),
    ("tests/slurm/test_command_line.py", "tests/slurm/test_sweep.py", "tests/slurm/test_dev_cluster.py"),
)
FIRST = [file for group in SLURM_GROUPS for file in group]


class FilesTogether(LoadFileScheduling):
    """Runs all tests in a file on one worker, so the file's fixtures are created only once. Each SLURM group counts as one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return next((group[0] for group in SLURM_GROUPS if file in group), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return FilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the SLURM groups to the front, and keep the order of all other tests.

    Tests on a cluster get more time, because their jobs compete with all other tests.
    """
    order = {file: place for place, file in enumerate(FIRST)}
    for item in items:
        if item.nodeid.split("::")[0] in order:
            item.add_marker(pytest.mark.timeout(1800))
    items.sort(key=lambda item: order.get(item.nodeid.split("::")[0], len(order)))


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs unless only the GPU tests were selected: all other tests expect the exact results of a CPU."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def data_spec() -> DataSpec:
    """Packages of the standard library: real text in many small documents."""
    library = Path(os.__file__).parent
    paths = [str(library / name) for name in ("asyncio", "email", "http", "json", "logging", "unittest", "xml")]
    fields = {"source": {"kind": "files", "paths": paths}, "vocabulary": 320, "max_tokens": 10**9, "test_fraction": 0.1}
    return DataSpec.model_validate(fields)


@pytest.fixture(scope="session")
def store(data_dir: Path, data_spec: DataSpec) -> TokenStore:
    return prepare(data_spec, data_dir)


@pytest.fixture(scope="session")
def study(data_spec: DataSpec) -> Study:
    return Study.model_validate(
        {
            "name": "tiny",
            "data": data_spec,
            "training": {"tokens": 64 * 32 * 8, "context": 32, "sequences_per_step": 8, "learning_rate": 3e-3},
            "evaluation": {
                "even_points": 8,
                "log_points": 3,
                "test_sequences": 16,
                "pool_sequences": 8,
                "seen_sequences": 8,
            },
            "grid": [{"model": ["1x16", "2x16"], "repeats": [1, 4, 16], "repeated_fraction": 0.5}],
        }
    )


@pytest.fixture
def runs(study: Study, store: TokenStore) -> list[Run]:
    return study.runs(StudyTexts(store.fingerprint))


@pytest.fixture
def workplace(tmp_path: Path, store: TokenStore, study: Study) -> Path:
    """A folder with the study `tiny`, whose token store is already built."""
    return make_workplace(tmp_path, store, study)


@pytest.fixture
def with_child(workplace: Path) -> Path:
    """The same folder with the study `child`: its runs start from runs of `tiny`, on other packages of the library."""
    paths = [str(Path(os.__file__).parent / name) for name in ("ctypes", "dbm", "html", "urllib", "curses")]
    data = f"[data]\nsource = {toml({'kind': 'files', 'paths': paths})}\nmax_tokens = 1_000_000\n"
    (workplace / "studies" / "child.toml").write_text(data + CHILD)
    return workplace


def make_workplace(folder: Path, store: TokenStore, study: Study) -> Path:
    """Write the study `tiny` into a folder, and link the folder of its token store."""
    (folder / "studies").mkdir()
    spec = study.data
    data = {"source": spec.source.model_dump(), "vocabulary": spec.vocabulary, "max_tokens": spec.max_tokens}
    lines = [f"{key} = {toml(value)}" for key, value in (data | {"test_fraction": spec.test_fraction}).items()]
    (folder / "studies" / "tiny.toml").write_text("\n".join(["[data]", *lines, STUDY]))
    (folder / "data").symlink_to(store.folder.parent)
    return folder


@pytest.fixture
def preloaded_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork worker processes from one that has imported torch, so that tests can kill many of them without waiting for imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["repeat_study.training.trainer"])
    monkeypatch.setattr(workers, "PROCESSES", context)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs permission to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
