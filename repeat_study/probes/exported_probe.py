"""Probe an exported run in the same way as the run itself, if its token store is available."""

from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import read_record
from data_prep.token_store import TokenStore, find_store
from repeat_study.config.run import Run, run_from_record
from repeat_study.hugging_face.decoders import DecoderConfig, decoder_config, trained_decoder
from repeat_study.hugging_face.folder import CONFIG, ModelFolder
from repeat_study.probes.checkpoint_probe import TrainedModel
from repeat_study.records.recorded_run import check_names

SPEC = "spec.json"  # the spec of the exported run


class NoStore(InputError):
    """The exported run's token store is not available, so the run's own texts cannot be used."""


def is_exported(folder: ModelFolder) -> bool:
    """Whether `export` wrote the folder."""
    return (folder.path / SPEC).is_file() and isinstance(folder.config.get("repeat_study"), dict)


def exported_run(folder: ModelFolder, data_dir: Path) -> TrainedModel | None:
    """The run that was exported to a folder; None if the folder is not an exported run.

    data_dir: the folder that contains the token store. Raises NoStore if the run's store is not there, and InputError if
    spec.json was altered or does not match the model.
    """
    path, config = folder.path / SPEC, decoder_config(folder)
    if config is None or not is_exported(folder):
        return None
    record = read_record(path, "identity")
    run = run_from_record(record, path)
    check_names(run, path)
    if run.identity != record["identity"]:
        raise InputError(f"{path}: altered since it was written; its fields do not hash to its identity")
    step = folder.config["repeat_study"].get("step")
    if not isinstance(step, int) or not 0 <= step <= run.steps:
        raise InputError(
            f"{folder.path / CONFIG}: repeat_study.step: {step!r} found; expected a step from 0 to {run.steps}"
        )
    try:
        store = find_store(data_dir, run.corpus)
    except InputError as error:
        raise NoStore(str(error)) from error
    _check_match(folder, config, run, store)
    return TrainedModel(run, store, step, trained_decoder(folder, config, run.context))


def _check_match(folder: ModelFolder, config: DecoderConfig, run: Run, store: TokenStore) -> None:
    """Raise InputError unless the model has the shape and the vocabulary of the run."""
    if (config.shape, config.vocab_size) != (run.shape, run.model_vocabulary(store.vocabulary)):
        raise InputError(f"{folder.path / CONFIG}: not the model of {run.name}, which {SPEC} describes")
