"""Write one TensorBoard line per arm, with the mean over its finished seeds, to `arms/` in the study's folder.

An arm consists of the finished runs that agree in everything except the seed. A file is written only if the arm's finished runs have
changed. In this case, it replaces the older one, so a running TensorBoard shows no point twice.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary

from data_prep.errors import InputError
from data_prep.files import canonical_json
from repeat_study.config.run import Run
from repeat_study.records.json_lines import last_row
from repeat_study.records.recorded_run import recorded_run
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.records.tensorboard.events import clear_events, event_files, write_labeled_events
from repeat_study.records.tensorboard.run_writer import point_value, scalar_metadata, scalars_of, values_of

FOLDER = "arms"
FORMAT = 1  # incremented when the content of the files changes for the same runs
# An arm's runs may differ in these fields. Parents differ in their seeds, labels and identities.
OF_SEED = ("seed", "pool_seed", "evaluation", "further_tests")
OF_PARENT_SEED = ("seed", "label", "identity")


def write_arm_means(study_dir: Path, names: Iterable[str]) -> list[str]:
    """Write the means of all arms with finished runs. Arms without any are emptied.

    names: the run directories to include. Returns the paths of all event files below `arms/`, relative to `study_dir`.
    Raises InputError if a record cannot be read or an event file cannot be written.
    """
    arms: dict[bytes, list[tuple[Run, RunDirectory]]] = {}
    for name in names:
        directory = RunDirectory(study_dir / name)
        if directory.status() is Status.DONE:
            run = recorded_run(directory)
            arms.setdefault(canonical_json(_settings(run)), []).append((run, directory))
    labels = _labels([[run for run, _ in runs] for runs in arms.values()])
    root = study_dir / FOLDER
    for label, runs in zip(labels, arms.values(), strict=True):
        _write_arm(root / label, [directory for _, directory in runs])
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.is_dir() and folder.name not in labels:
            clear_events(folder)
    return [str(path.relative_to(study_dir)) for label in sorted(labels) for path in event_files(root / label)]


def _settings(run: Run) -> dict[str, Any]:
    """Everything in which the runs of an arm agree."""
    settings = run.model_dump(mode="json", exclude=set(OF_SEED))
    if run.parent:
        settings["parent"] = run.parent.model_dump(mode="json", exclude=set(OF_PARENT_SEED))
    return settings


def _labels(arms: list[list[Run]]) -> list[str]:
    """A folder name for each arm: the run's label without its seed, and the settings that tell arms with the same label apart."""
    plain = [_without_seed(runs[0]) for runs in arms]
    labels = []
    for label, runs in zip(plain, arms, strict=True):
        same = [_settings(other[0]) for other, name in zip(arms, plain, strict=True) if name == label]
        own = _settings(runs[0])
        differing = [key for key in own if any(other.get(key) != own[key] for other in same)]
        labels.append("-".join([label, *(f"{key}{_short(own[key])}" for key in differing)]))
    return labels


def _short(value: Any) -> str:
    text = str(value)
    simple = isinstance(value, str | int | float) and len(text) <= 20 and "/" not in text
    return text if simple else hashlib.sha256(canonical_json(value)).hexdigest()[:6]


def _without_seed(run: Run) -> str:
    unseeded = {"seed": 0, "pool_seed": 0}
    if run.parent:
        label = run.parent.label.removesuffix(f"-s{run.parent.seed}")
        unseeded["parent"] = run.parent.model_copy(update={"seed": 0, "label": label})  # type: ignore[assignment]
    return "-".join(word for word in run.model_copy(update=unseeded).label.split("-") if word != "s0")


def _write_arm(folder: Path, directories: list[RunDirectory]) -> None:
    """Write the mean of the runs at every evaluation that all of them have, unless the file already contains it."""
    records = sorted((directory.path.name, directory.done.read_bytes().hex()) for directory in directories)
    digest = hashlib.sha256(canonical_json([FORMAT, records])).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be created: {error.strerror}") from error
    write_labeled_events(folder, digest, lambda: _means(directories))


def _means(directories: list[RunDirectory]) -> list[tuple[float, int, list[Summary.Value]]]:
    """The time, the trained tokens and the mean values of every evaluation."""
    count = len(directories)
    note = f"mean over {count} finished seed{'s' if count > 1 else ''}"
    curves = [{row["tokens"]: row for row in directory.rows()} for directory in directories]
    # A mean has no time of its own, so all points have that of the last evaluation.
    time = max((last_row(directory.timing) or {}).get("time") or 0.0 for directory in directories)
    described: set[str] = set()
    events = []
    for tokens in sorted(set.intersection(*map(set, curves))):
        rows = [curve[tokens] for curve in curves]
        points = [values_of(row) for row in rows]
        means = {
            tag: sum(point[tag] for point in points) / count
            for tag in points[0]
            if all(tag in point for point in points)
        }
        if means.keys() - described:  # the first event with a tag describes it
            titles = {scalar.tag: (scalar.title, f"{scalar.description} ({note})") for scalar in scalars_of(rows[0])}
        values = []
        for tag, mean in means.items():
            value = point_value(tag, mean)
            if tag not in described:
                value.metadata.CopyFrom(scalar_metadata(*titles[tag]))
                described.add(tag)
            values.append(value)
        events.append((time, tokens, values))
    return events
