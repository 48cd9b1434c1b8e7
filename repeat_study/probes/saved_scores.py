"""Save a model's scores, and reuse them as long as the model and the options have not changed."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import read_record, sha256_file, write_json
from data_prep.token_store import find_store
from repeat_study.hugging_face.folder import CONFIG, INDEX, weight_files
from repeat_study.hugging_face.vocabulary import OTHER_TOKENIZERS, TOKENIZER
from repeat_study.probes.exported_probe import SPEC
from repeat_study.probes.path_probe import ProbeOptions, probe_path
from repeat_study.probes.reports import Report
from repeat_study.records.run_directory import RunDirectory

FORMAT = 2  # incremented when a change to the code alters scores


def scores_file(folder: Path, model: Path) -> Path:
    """Where the scores of the model at a path are saved. The name contains a hash of the path, because folders may share their name."""
    path = Path(os.path.realpath(model))
    return folder / f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.json"


def saved_scores(file: Path, model: Path, options: ProbeOptions) -> dict[str, Any] | None:
    """The scores in a file; None if there are none, or if the model or the options have changed since.

    The content of the model's files is compared only if their sizes or times differ.
    """
    with suppress(InputError):  # a damaged file is measured again
        saved = read_record(file, "options", "files", "scores")
        if saved["options"] == _options(model, options) and _unchanged(saved["files"], _files(model)):
            return dict(saved["scores"])
    return None


def measure_and_save(file: Path, model: Path, options: ProbeOptions, report: Report) -> dict[str, Any]:
    """Measure a model and save its scores. Raises InputError if the model cannot be measured or the file cannot be written."""
    before = {path.name: [*_size_and_time(path), sha256_file(path)] for path in _files(model)}
    scores = probe_path(model, options, report=report).record()
    write_json(file, {"options": _options(model, options), "files": before, "scores": scores})
    return scores


def _files(model: Path) -> list[Path]:
    """The files that determine a model's scores."""
    if (model / CONFIG).is_file():
        named = [model / name for name in (CONFIG, SPEC, INDEX, TOKENIZER, *OTHER_TOKENIZERS)]
        return [*(path for path in named if path.is_file()), *weight_files(model)]
    directory = RunDirectory(model)
    return [path for path in (directory.spec, directory.checkpoint) if path.is_file()]


def _unchanged(saved: dict[str, list[Any]], files: list[Path]) -> bool:
    return saved.keys() == {path.name for path in files} and all(
        [*_size_and_time(path)] == saved[path.name][:2] or sha256_file(path) == saved[path.name][2] for path in files
    )


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _options(model: Path, options: ProbeOptions) -> dict[str, Any]:
    """Everything but the model's files that can change its scores, except for the device, which changes only their rounding."""
    text = None if options.text is None else hashlib.sha256(options.text.encode()).hexdigest()
    has_store = False  # with the token store, an exported run is measured on its own texts
    with suppress(InputError):
        find_store(options.data_dir, str(read_record(model / SPEC).get("corpus")))
        has_store = True
    return {
        "format": FORMAT,
        "text": text,
        "context": options.context,
        "ablation": options.ablation,
        "store": has_store,
    }
