"""The names that `repeat_study` exports for use from Python."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

import repeat_study
from data_prep.token_store import TokenStore
from repeat_study import load_study, mixture_dataset, prepare_study
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.training.dataset import MixtureDataset


def test_the_dataset_holds_every_sequence_of_the_pool_exactly_r_times(runs: list[Run], store: TokenStore) -> None:
    run = runs[2]
    assert (run.repeats, run.repeated_fraction) == (16, 0.5)
    batches = list(DataLoader(mixture_dataset(run, store), batch_size=None))
    assert len(batches) == run.steps and batches[0].shape == (1, run.sequences_per_step, run.context + 1)
    sequences = np.concatenate([batch[0].numpy() for batch in batches])
    _, counts = np.unique(sequences, axis=0, return_counts=True)
    assert (counts >= 16).sum() == run.pool and counts.sum() == run.positions


def test_two_processes_split_the_batches_of_one_process(runs: list[Run], store: TokenStore) -> None:
    full, *halves = (mixture_dataset(runs[1], store, *share) for share in ((), (0, 2), (1, 2)))
    assert isinstance(full, MixtureDataset)
    for rank, half in enumerate(halves):
        assert all((half[step] == full[step][:, rank::2]).all() for step in range(len(full)))


def test_a_study_is_prepared_from_python(study: Study, store: TokenStore, data_dir: Path, tmp_path: Path) -> None:
    prepared = prepare_study(study, data_dir)
    assert prepared.store.fingerprint == store.fingerprint
    assert [run.identity for run in prepared.runs(tmp_path)] == [
        run.identity for run in study.runs(StudyTexts(store.fingerprint))
    ]


def test_installed_studies_are_loaded_by_name_and_local_ones_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    installed = load_study("laptop")
    assert installed.training.tokens == 1_536_000
    text = (Path(__file__).parents[2] / "studies" / "laptop.toml").read_text()
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "laptop.toml").write_text(text.replace("tokens = 1_536_000", "tokens = 3_072_000"))
    assert load_study("laptop").training.tokens == 3_072_000
    child = (Path(__file__).parents[2] / "studies" / "transfer_to_prose.toml").read_text()
    (tmp_path / "studies" / "mine.toml").write_text(child)
    assert load_study("mine").parent_study == load_study("laptop")
    (tmp_path / "studies" / "laptop.toml").unlink()
    assert load_study("mine").parent_study == installed, "[finetune] finds installed studies too"


def test_importing_the_package_or_loading_a_study_imports_no_large_library() -> None:
    code = (
        "import sys, repeat_study; repeat_study.load_study('laptop');"
        "print([name for name in ('torch', 'lightning', 'pandas', 'pyarrow', 'datasets', 'scipy') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"


def test_only_the_exported_names_exist() -> None:
    assert set(repeat_study.__all__) <= set(dir(repeat_study))
    assert all(callable(getattr(repeat_study, name)) for name in repeat_study.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        repeat_study.nothing  # noqa: B018
