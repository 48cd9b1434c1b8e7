"""Exported runs have the scores of the runs themselves."""

from pathlib import Path

import pytest

from data_prep.errors import InputError
from repeat_study.export.exported_folder import export
from repeat_study.probes.checkpoint_probe import load_trained, probe
from repeat_study.probes.folder_probe import probe_folder
from repeat_study.records.run_directory import RunDirectory
from tests.repeat_study.export.conftest import FAMILIES
from tests.repeat_study.hugging_face_models import assert_close, numbers


@pytest.mark.parametrize("model", FAMILIES)
def test_probing_an_exported_folder_gives_the_scores_of_the_run(
    model: str, families: dict[str, RunDirectory], data_dir: Path, tmp_path: Path
) -> None:
    directory = families[model]
    trained = load_trained(directory.path, data_dir)
    folder = export(trained, directory, tmp_path)
    expected, actual = probe(trained), probe_folder(folder, data_dir)
    assert actual.source == expected.source
    assert_close(numbers(actual), numbers(expected))


def test_without_its_store_an_exported_run_is_measured_like_any_other_model(
    families: dict[str, RunDirectory], data_dir: Path, tmp_path: Path
) -> None:
    directory = families["2x32"]
    trained = load_trained(directory.path, data_dir)
    folder = export(trained, directory, tmp_path)
    alone = probe_folder(folder, tmp_path).trained.row
    row = probe(trained).trained.row
    assert "measured without the run's own texts: " in probe_folder(folder, tmp_path).notes[0]
    assert alone["copying_loss"] == pytest.approx(row["copying_loss"], abs=1e-5), "both copy the shipped paragraphs"
    assert "test_loss" not in alone and "prefix_matching" in alone
    for options, reason in (
        ({"data_dir": tmp_path}, "the run's token store is not available"),
        (
            {"data_dir": data_dir, "ablation": False},
            "with --no-ablation, an exported run is measured without its token store",
        ),
        ({"data_dir": data_dir, "context": 32}, "with --context, an exported run is measured without its token store"),
    ):
        notes = probe_folder(folder, **options).notes
        assert any(note.startswith("not measured: test loss") and reason in note for note in notes)
    spec = folder / "spec.json"
    spec.write_text(spec.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match=r"spec.json: altered since it was written"):
        probe_folder(folder, data_dir)
