"""A TensorBoard that stays open while runs are killed and resumed: each of its loaders follows, and no point appears twice."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.data.provider import RunTagFilter
from tensorboard.data.server_ingester import SubprocessServerDataIngester, get_server_binary
from tensorboard.plugins.scalar.metadata import PLUGIN_NAME
from tensorboard.util.grpc_util import ChannelCredsType
from tensorboard.util.tensor_util import make_ndarray

from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.tables import read_table
from repeat_study.records.tensorboard import events
from repeat_study.records.tensorboard.events import event_files, image, later_path, write_events
from repeat_study.records.tensorboard.heat_map import heat_map
from repeat_study.training.trainer import train, train_bundle
from tests.waiting import PATIENCE

Points = dict[str, list[tuple[int, float]]]
Loader = Callable[[str], Points]  # from a run's name to the points that the loader has now, by tag
TAGS = ("loss/test", "loss/train", "copying/gain", "induction/prefix_matching", "machine/memory_gib")


def points_of(accumulator: Any) -> Points:
    """The points that an accumulator of either class has."""
    tags = [tag for tag in accumulator.Tags()["tensors"] if tag in TAGS]
    return {
        tag: [(event.step, make_ndarray(event.tensor_proto).item()) for event in accumulator.Tensors(tag)]
        for tag in tags
    }


def python_loader(study_dir: Path, multifile: bool) -> Loader:
    """TensorBoard's slow loader, with a DirectoryWatcher or (as under --reload_multifile) with a DirectoryLoader."""
    is_active = (lambda timestamp: timestamp > time.time() - 86_400) if multifile else None
    accumulators: dict[str, EventAccumulator] = {}

    def load(run: str) -> Points:
        if run not in accumulators:
            path, everything = str(study_dir / run), {"tensors": 0}
            accumulators[run] = EventAccumulator(path, everything, event_file_active_filter=is_active)
        return points_of(accumulators[run].Reload())

    return load


def accumulator_of_notebooks(study_dir: Path) -> Loader:
    """The older class of that name, which people use in their own code."""
    accumulators: dict[str, event_accumulator.EventAccumulator] = {}

    def load(run: str) -> Points:
        if run not in accumulators:
            accumulators[run] = event_accumulator.EventAccumulator(str(study_dir / run), {"tensors": 0})
        return points_of(accumulators[run].Reload())

    return load


def data_server(study_dir: Path, open_files: ExitStack) -> Loader:
    """TensorBoard's fast loader, a process of its own that looks for new events every second."""
    ingester = SubprocessServerDataIngester(
        get_server_binary(), str(study_dir), reload_interval=1, channel_creds_type=ChannelCredsType.LOCAL
    )
    ingester.start()
    open_files.callback(lambda: ingester._stdin_handle.close())  # the server ends with its standard input

    def load(run: str) -> Points:
        series = ingester.data_provider.read_scalars(
            None,
            experiment_id="",
            plugin_name=PLUGIN_NAME,
            downsample=1000,
            run_tag_filter=RunTagFilter(runs=[run], tags=TAGS),
        )
        return {
            tag: [(point.step, point.value) for point in points]
            for tag, points in series.get(run, {}).items()
            if points
        }

    return load


@pytest.fixture
def open_loaders(tmp_path: Path) -> Iterator[dict[str, Loader]]:
    """Every loader of TensorBoard, open on the folder `study` for the whole test."""
    study_dir = tmp_path / "study"
    study_dir.mkdir()
    with ExitStack() as open_files:
        yield {
            "DirectoryWatcher": python_loader(study_dir, multifile=False),
            "DirectoryLoader": python_loader(study_dir, multifile=True),
            "older EventAccumulator": accumulator_of_notebooks(study_dir),
            "data server": data_server(study_dir, open_files),
        }


def recorded(study_dir: Path, run: Run) -> list[tuple[int, float]]:
    """Trained tokens and test loss of every evaluation in a run's records."""
    rows = RunDirectory(study_dir / run.name).rows()
    return [(row["tokens"], pytest.approx(row["test_loss"])) for row in rows]


def assert_followed(loaders: dict[str, Loader], study_dir: Path, *runs: Run) -> None:
    """Every loader has each evaluation of the runs once, in order, and with the recorded loss."""
    for name, load in loaders.items():
        for run in runs:
            expected, points = recorded(study_dir, run), load(run.name)
            # The data server looks for new events by itself.
            limit = time.monotonic() + (PATIENCE if name == "data server" else 0)
            while points.get("loss/test") != expected and time.monotonic() < limit:
                time.sleep(0.2)
                points = load(run.name)
            assert points["loss/test"] == expected, name
            steps = {tag: [step for step, _ in series] for tag, series in points.items()}
            assert all(len(set(series)) == len(series) for series in steps.values()), name


def kill_at(step: int, of: Run) -> Callable[[Progress], None]:
    """Kills the process right after it has written an evaluation's events and records, before its checkpoint."""

    def report(progress: Progress) -> None:
        if progress.run == of.name and progress.step == step and not progress.resumed:
            os.kill(os.getpid(), signal.SIGKILL)

    return report


def trained_until_killed(work: Callable[[], object]) -> None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL


def test_every_loader_follows_a_run_that_is_killed_three_times_and_resumed(
    open_loaders: dict[str, Loader], runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, folder = runs[1], tmp_path / "study"
    for step in (run.evaluation.steps(run.steps)[1], 24, 40):  # the first kill comes before the first checkpoint
        trained_until_killed(lambda step=step: train(run, store, folder, kill_at(step, run)))
        assert RunDirectory(folder / run.name).rows()[-1]["step"] == step
        assert_followed(open_loaders, folder, run)
    assert train(run, store, folder) is Outcome.DONE
    assert len(recorded(folder, run)) == len(run.evaluation.steps(run.steps))
    assert_followed(open_loaders, folder, run)


def test_every_loader_follows_a_run_that_starts_again_because_its_checkpoint_was_deleted(
    open_loaders: dict[str, Loader], runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, folder = runs[1], tmp_path / "study"
    del open_loaders["older EventAccumulator"]  # it never discards points
    trained_until_killed(lambda: train(run, store, folder, kill_at(40, run)))
    assert_followed(open_loaders, folder, run)
    RunDirectory(folder / run.name).checkpoint.unlink()
    calls = iter(range(10_000))
    train(run, store, folder, should_stop=lambda: next(calls) == 20)
    assert recorded(folder, run)[-1][0] < 24 * run.tokens_per_step
    assert_followed(open_loaders, folder, run)


@pytest.mark.slow
def test_every_loader_follows_the_lanes_of_a_bundle_that_is_killed_between_two_of_them(
    open_loaders: dict[str, Loader], runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    bundle, folder = [run for run in runs if run.model == "1x16"], tmp_path / "study"
    trained_until_killed(lambda: train_bundle(bundle, store, folder, kill_at(24, bundle[1])))
    written = [RunDirectory(folder / run.name).rows()[-1]["step"] for run in bundle]
    assert written[0] == written[1] == 24 > written[2]
    assert_followed(open_loaders, folder, *bundle)
    assert train(bundle[2], store, folder) is Outcome.DONE
    assert set(train_bundle(bundle, store, folder).values()) == {Outcome.DONE, Outcome.ALREADY_DONE}
    assert_followed(open_loaders, folder, *bundle)


def test_a_new_reader_sees_a_resumed_run_like_an_undisturbed_one(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run = runs[1]
    trained_until_killed(lambda: train(run, store, tmp_path / "killed", kill_at(24, run)))
    for folder in ("killed", "undisturbed"):
        train(run, store, tmp_path / folder)
    found, wanted = (
        python_loader(tmp_path / folder, multifile=False)(run.name) for folder in ("killed", "undisturbed")
    )
    assert found.keys() == wanted.keys() and len(found) >= 4
    for tag in found.keys() - {"machine/memory_gib"}:
        assert found[tag] == wanted[tag], tag


@pytest.mark.parametrize("left", [0, 11, 30])
def test_a_session_that_was_killed_while_it_opened_its_event_file_is_followed(
    left: int, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    """It leaves a file that is empty or ends within its first records."""
    run, calls = runs[1], iter(range(10_000))
    train(run, store, tmp_path, should_stop=lambda: next(calls) == 20)
    load, folder = python_loader(tmp_path, multifile=False), tmp_path / run.name
    assert_followed({"open": load}, tmp_path, run)
    (first,) = event_files(folder)
    later_path(folder).write_bytes(first.read_bytes()[:left])
    load(run.name)
    assert train(run, store, tmp_path) is Outcome.DONE
    for reader in (load, python_loader(tmp_path, multifile=False)):
        assert_followed({f"{left} bytes": reader}, tmp_path, run)


def test_the_clock_of_another_machine_does_not_stop_a_loader(
    runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file written by a machine whose clock is ahead has the greatest name, and the next one a greater one."""
    run, load = runs[1], python_loader(tmp_path, multifile=False)
    calls = iter(range(10_000))
    with monkeypatch.context() as patch:
        ahead = time.time_ns() + 10**13
        patch.setattr(events.time, "time_ns", lambda: ahead)
        train(run, store, tmp_path, should_stop=lambda: next(calls) == 20)
    assert_followed({"open": load}, tmp_path, run)
    assert train(run, store, tmp_path) is Outcome.DONE
    assert_followed({"open": load}, tmp_path, run)


def test_a_run_that_rested_for_days_is_followed_by_the_multifile_loader(
    runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops reading files whose newest event is a day old, and the events of a resumed run begin with old ones."""
    run = runs[1]
    calls = iter(range(10_000))
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 10 * 86_400)
        train(run, store, tmp_path, should_stop=lambda: next(calls) == 20)
    load = python_loader(tmp_path, multifile=True)
    load(run.name)
    reports: list[Points] = []
    train(run, store, tmp_path, lambda progress: reports.append(load(run.name)))
    assert [len(points["loss/test"]) for points in reports] == sorted(len(points["loss/test"]) for points in reports)
    assert_followed({"open": load}, tmp_path, run)


def test_an_open_loader_shows_the_images_of_the_newest_report(tmp_path: Path) -> None:
    accumulator = EventAccumulator(str(tmp_path))
    picture = [heat_map([0], [0], [value]) for value in (0.0, 0.5, 1.0)]
    for png in [picture[0], picture[1], picture[1], picture[2], picture[0]]:
        write_events(tmp_path, [image("report/heads", "heads", "a caption", png)])
        (found,) = accumulator.Reload().Tensors("report/heads")
        assert found.tensor_proto.string_val[2] == png
    with_content = [path for path in event_files(tmp_path) if path.stat().st_size]
    assert len(with_content) == 1 and len(event_files(tmp_path)) == 4, "the older ones are empty"


def test_files_that_have_been_empty_for_a_day_are_deleted(tmp_path: Path) -> None:
    picture = [heat_map([0], [0], [value]) for value in (0.0, 0.5, 1.0)]
    for png in picture[:2]:
        write_events(tmp_path, [image("report/heads", "heads", "a caption", png)])
    emptied, written = event_files(tmp_path)
    os.utime(emptied, (time.time() - 90_000,) * 2)
    write_events(tmp_path, [image("report/heads", "heads", "a caption", picture[2])])
    assert not emptied.exists() and written.exists() and not written.stat().st_size


def test_records_and_events_agree_on_heads(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    """The heat maps of a resumed run are also written again, one per evaluation."""
    run, calls = runs[1], iter(range(10_000))
    train(run, store, tmp_path, should_stop=lambda: next(calls) == 20)
    accumulator = EventAccumulator(str(tmp_path / run.name), {"tensors": 0}).Reload()
    train(run, store, tmp_path)
    steps = [event.step for event in accumulator.Reload().Tensors("heads/prefix_matching")]
    table = read_table(RunDirectory(tmp_path / run.name).heads)
    assert table and steps == sorted(set(table["tokens"].to_pylist()))
