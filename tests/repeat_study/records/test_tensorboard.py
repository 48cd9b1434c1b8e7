"""What TensorBoard reads: events through its own reader, tables and charts through the routes that its page requests."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin
from tensorboard.util.tensor_util import make_ndarray
from werkzeug.test import Client

from data_prep.errors import InputError
from data_prep.mixture import Spacing
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.records.metric import NATS, Metric, Null
from repeat_study.records.metrics import METRICS
from repeat_study.records.tensorboard.events import event_files, read_events
from repeat_study.records.tensorboard.heat_map import CELL, MARGIN
from repeat_study.records.tensorboard.run_writer import TensorBoardWriter, scalars_of
from repeat_study.records.tensorboard.study_page import write_study_page

Points = dict[str, list[tuple[int, float]]]
HEADS = {"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "prefix_matching": [0.03, 0.0, 1.0, 0.25]}
ALL_STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


@pytest.fixture
def grid(study: Study) -> list[Run]:
    return study.runs(StudyTexts("0123456789abcdef"))


def has_tagged_null(metric: Metric) -> bool:
    return isinstance(metric.null, Null) and bool(metric.null.name)


TAGGED = [metric for metric in METRICS if metric.tag]
KEYS = [metric.key for metric in TAGGED] + [metric.null_key for metric in TAGGED if has_tagged_null(metric)]
TAGS = [metric.tag for metric in TAGGED] + [f"{metric.tag}_null" for metric in TAGGED if has_tagged_null(metric)]


def row(step: int, **changes: Any) -> dict[str, Any]:
    """An evaluation with a different number for every metric."""
    numbers = {key: place + step / 1024 for place, key in enumerate(KEYS, start=1)}
    fixed = {"step": step, "tokens": 256 * step, "time": 1.7e9 + step, "copying_loss_per_copy": [5.0, 4.0, 3.0]}
    return fixed | numbers | changes


def start_writer(study_dir: Path, run: Run, rows: list[dict[str, Any]]) -> TensorBoardWriter:
    folder = study_dir / run.name
    folder.mkdir(parents=True, exist_ok=True)
    return TensorBoardWriter(folder, run, [(row, HEADS) for row in rows])


def read(study_dir: Path) -> EventMultiplexer:
    multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0})
    multiplexer.AddRunsFromDirectory(str(study_dir))
    multiplexer.Reload()
    return multiplexer


def points(study_dir: Path, run: Run) -> Points:
    """Step and value of every point of a run by tag."""
    multiplexer = read(study_dir)
    tags = multiplexer.PluginRunToTagToContent("scalars").get(run.name, {})
    return {
        tag: [(event.step, float(make_ndarray(event.tensor_proto))) for event in multiplexer.Tensors(run.name, tag)]
        for tag in tags
    }


def steps_written(folder: Path) -> list[int]:
    """The step of every evaluation in all event files of a run, in the order of the files."""
    written = [event for path in event_files(folder) for event in read_events(path)]
    return [event.step for event in written if "loss/test" in {value.tag for value in event.summary.value}]


def served(study_dir: Path) -> Callable[..., Any]:
    """Sends requests to TensorBoard's plugins, as its page does: served(folder)("hparams", "/experiment", {...})."""
    multiplexer = read(study_dir)
    plugins: dict[str, Any] = {}
    provider = MultiplexerDataProvider(multiplexer, str(study_dir))
    context = TBContext(logdir=str(study_dir), data_provider=provider, plugin_name_to_instance=plugins)
    plugins |= {kind.plugin_name: kind(context) for kind in (ScalarsPlugin, CustomScalarsPlugin, HParamsPlugin)}

    def request(plugin: str, route: str, body: dict[str, Any] | None = None) -> Any:
        client = Client(plugins[plugin].get_plugin_apps()[route])
        response = client.post(json=body) if body is not None else client.get()
        assert response.status_code == 200, response.text
        return json.loads(response.text)

    return request


def table(study_dir: Path) -> dict[str, dict[str, Any]]:
    """TensorBoard's table of runs, by run name."""
    body = {"startIndex": 0, "sliceSize": 1000, "allowedStatuses": ALL_STATUSES, "colParams": []}
    groups = served(study_dir)("hparams", "/session_groups", body)["sessionGroups"]
    assert all(len(group["sessions"]) == 1 for group in groups)
    assert len({group["name"] for group in groups}) == len(groups)
    return {group["name"]: group["sessions"][0] | group for group in groups}


def columns(study_dir: Path) -> dict[str, list[Any]]:
    """The factors in that table, with the values they take in the study."""
    experiment = served(study_dir)("hparams", "/experiment", {})
    return {info["name"]: info["domainDiscrete"] for info in experiment["hparamInfos"]}


def test_a_run_is_named_after_its_folder_and_plotted_against_trained_tokens(tmp_path: Path, grid: list[Run]) -> None:
    write_study_page(tmp_path, grid)
    for run in grid:
        writer = start_writer(tmp_path, run, [])
        writer.add(row(0), HEADS)
        writer.add(row(4), HEADS)
        writer.close()
    assert set(read(tmp_path).Runs()) == {".", *(run.name for run in grid)}
    curves = points(tmp_path, grid[0])
    assert curves.keys() == {*TAGS} | {f"loss_by_copy/0{copy}" for copy in (1, 2, 3)}
    place = KEYS.index("test_loss") + 1
    assert curves["loss/test"] == [(0, place), (1024, place + 4 / 1024)]
    assert curves["loss_by_copy/03"] == [(0, 3.0), (1024, 3.0)]


def test_an_evaluation_is_visible_as_soon_as_it_is_added(tmp_path: Path, grid: list[Run]) -> None:
    writer = start_writer(tmp_path, grid[0], [row(0)])
    assert [step for step, _ in points(tmp_path, grid[0])["loss/test"]] == [0]
    writer.add(row(1), HEADS)
    assert [step for step, _ in points(tmp_path, grid[0])["loss/test"]] == [0, 256]
    writer.close()


@pytest.mark.parametrize("resumed_at", [0, 3, 5, 7])
def test_resuming_neither_duplicates_nor_loses_points(tmp_path: Path, grid: list[Run], resumed_at: int) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    rows = [row(step) for step in range(8)]
    writer = start_writer(undisturbed, grid[0], [])
    for evaluation in rows:
        writer.add(evaluation, HEADS)
    writer.close()

    start_writer(killed, grid[0], rows[:6])  # never closed
    (events,) = (killed / grid[0].name).glob("events*")
    with events.open("ab") as file:
        file.write(b"\x99\x00\x00")  # a truncated record
    resumed = start_writer(killed, grid[0], rows[:resumed_at])
    for evaluation in rows[resumed_at:]:
        resumed.add(evaluation, HEADS)
    resumed.close()
    assert points(killed, grid[0]) == points(undisturbed, grid[0])
    if resumed_at >= 5:  # a kill leaves at most one evaluation after the checkpoint
        steps = steps_written(killed / grid[0].name)
        assert steps == [256 * step for step in range(8)], "no evaluation is written twice"


@pytest.mark.parametrize("changed", [2, 5])
def test_an_evaluation_that_comes_out_differently_replaces_the_older_ones(
    tmp_path: Path, grid: list[Run], changed: int
) -> None:
    """On a GPU a step that is trained again can round differently."""
    start_writer(tmp_path, grid[0], [row(step) for step in range(6)])  # killed, never closed
    resumed = start_writer(tmp_path, grid[0], [row(0)])
    again = [row(step, test_loss=9.0 if step >= changed else row(step)["test_loss"]) for step in range(1, 7)]
    for evaluation in again:
        resumed.add(evaluation, HEADS)
    resumed.close()
    values = [row(0)["test_loss"], *(evaluation["test_loss"] for evaluation in again)]
    assert points(tmp_path, grid[0])["loss/test"] == [(256 * step, value) for step, value in enumerate(values)]


def test_evaluations_that_the_older_files_lack_are_written_again(tmp_path: Path, grid: list[Run]) -> None:
    """After a power failure the end of an event file can be missing or hold zeros."""
    rows = [row(step) for step in range(6)]
    start_writer(tmp_path, grid[0], rows).close()
    (path,) = (tmp_path / grid[0].name).glob("events*")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    start_writer(tmp_path, grid[0], rows).close()
    assert [step for step, _ in points(tmp_path, grid[0])["loss/test"]] == [256 * step for step in range(6)]


def test_every_evaluation_has_a_heat_map_of_its_heads(tmp_path: Path, grid: list[Run]) -> None:
    writer = start_writer(tmp_path, grid[0], [row(0)])
    writer.add(row(1), HEADS | {"prefix_matching": [0.5] * 4})
    writer.add(row(2), {})  # a context too short for the probe
    writer.close()
    events = read(tmp_path).Tensors(grid[0].name, "heads/prefix_matching")
    assert [event.step for event in events] == [0, 256]
    width, height, png = events[0].tensor_proto.string_val
    picture = Image.open(io.BytesIO(png))
    assert picture.size == (int(width), int(height))
    left, cell = MARGIN + 2, CELL

    def lightness(row: int, column: int) -> int:
        return sum(picture.getpixel((left + column * cell, row * cell + 2)))

    # Layers from the bottom up; light is high.
    assert lightness(0, 0) > lightness(0, 1) > lightness(1, 0) > lightness(1, 1)


def test_only_events_are_removed_from_a_run_directory(tmp_path: Path, grid: list[Run]) -> None:
    folder = tmp_path / grid[0].name
    folder.mkdir()
    kept = {name: folder / name for name in ("metrics.jsonl", "events.txt", "spec.json")}
    for path in kept.values():
        path.write_text("{}")
    start_writer(tmp_path, grid[0], []).close()
    assert all(path.read_text() == "{}" for path in kept.values())


def test_a_missing_number_has_no_point(tmp_path: Path, grid: list[Run]) -> None:
    without = {key: value for key, value in row(0).items() if key not in ("prefix_matching", "copying_loss_per_copy")}
    writer = start_writer(tmp_path, grid[0], [without | {"train_loss": None, "time": None}, row(1, pool_loss=0.0)])
    writer.close()
    curves = points(tmp_path, grid[0])
    for tag in ("loss/train", "induction/prefix_matching", "loss_by_copy/01"):
        assert [step for step, _ in curves[tag]] == [256], tag
    assert [value for _, value in curves["loss/pool"]] == [KEYS.index("pool_loss") + 1, 0.0]


def test_every_tag_has_its_unit_and_a_title_of_its_own(tmp_path: Path, grid: list[Run]) -> None:
    start_writer(tmp_path, grid[0], [row(0), row(1)]).close()
    multiplexer = read(tmp_path)
    units = {metric.tag: metric.unit for metric in TAGGED}
    for tag in points(tmp_path, grid[0]):
        description = multiplexer.SummaryMetadata(grid[0].name, tag).summary_description
        assert units.get(tag.removesuffix("_null"), NATS) in description, tag
        if tag.split("/")[0] in ("loss", "copying", "loss_by_copy") or "ablation" in tag or "in_context" in tag:
            assert NATS in description, tag
        elif tag.split("/")[0] in ("training", "machine"):
            assert NATS not in description, tag
    titles = [scalar.title for scalar in scalars_of(row(0))]
    assert len(set(titles)) == len(titles) == len(TAGS) + 3


def test_memory_is_shown_in_gib(tmp_path: Path, grid: list[Run]) -> None:
    start_writer(tmp_path, grid[0], [row(0, memory_bytes=3 * 2**29)]).close()
    assert points(tmp_path, grid[0])["machine/memory_gib"] == [(0, 1.5)]


def test_the_table_has_every_run_with_its_factors_and_final_results(tmp_path: Path, grid: list[Run]) -> None:
    write_study_page(tmp_path, grid)
    for run in grid:
        start_writer(tmp_path, run, [row(0), row(1, test_loss=run.repeats / 4)]).close()
    runs = table(tmp_path)
    assert runs.keys() == {run.name for run in grid}
    for run in grid:
        factors, results = runs[run.name]["hparams"], runs[run.name]["metricValues"]
        assert factors["model"] == run.model
        assert factors["repeats"] == run.repeats
        assert factors["parameters_non_embedding"] == run.shape.parameters_non_embedding
        last = {result["name"]["tag"]: result["value"] for result in results}
        assert last.keys() == {"loss/test", "loss/pool", "copying/gain", "induction/prefix_matching"}
        assert last["loss/test"] == run.repeats / 4


def test_the_table_has_a_column_for_every_factor_that_varies_and_for_those_of_every_study(
    tmp_path: Path, grid: list[Run]
) -> None:
    always = {"model", "parameters_non_embedding", "repeats", "repeated_fraction"}
    write_study_page(tmp_path, grid)
    factors = columns(tmp_path)
    assert factors.keys() == always
    assert factors["repeats"] == [1, 4, 16]
    repeated = next(run for run in grid if run.repeats > 1)
    varied = [
        repeated,
        repeated.model_copy(update={"seed": 1}),
        repeated.model_copy(update={"weight_decay": 0.3}),
        repeated.model_copy(update={"spacing": Spacing.UNIFORM}),
    ]
    write_study_page(tmp_path, varied)
    factors = columns(tmp_path)
    assert factors.keys() == always | {"seed", "weight_decay", "spacing"}
    assert (factors["seed"], factors["weight_decay"], factors["spacing"]) == (
        ["0", "1"],
        [0.1, 0.3],
        ["passes", "uniform"],
    )
    assert factors["repeats"] == [repeated.repeats]


@pytest.mark.parametrize("succeeded", [True, False])
def test_the_table_shows_how_a_run_ended(tmp_path: Path, grid: list[Run], succeeded: bool) -> None:
    run = grid[0]
    write_study_page(tmp_path, grid)
    writer = start_writer(tmp_path, run, [row(0), row(1)])
    assert table(tmp_path)[run.name]["status"] == "STATUS_UNKNOWN"
    writer.finish(succeeded)
    writer.close()
    writer.close()
    session = table(tmp_path)[run.name]
    assert session["status"] == ("STATUS_SUCCESS" if succeeded else "STATUS_FAILURE")
    assert (session["startTimeSecs"], session["endTimeSecs"]) == (1.7e9, 1.7e9 + 1), (
        "of the run, not of its last session"
    )
    start_writer(tmp_path, run, [row(0)]).close()
    assert table(tmp_path)[run.name]["status"] == "STATUS_UNKNOWN", "a resumed run is not finished"


def test_every_chart_of_the_layout_shows_one_tag(tmp_path: Path, grid: list[Run]) -> None:
    write_study_page(tmp_path, grid)
    start_writer(tmp_path, grid[0], [row(0)]).close()
    tags = points(tmp_path, grid[0])
    (category,) = served(tmp_path)("custom_scalars", "/layout")["category"]
    shown = [[tag for tag in tags if re.match(chart["multiline"]["tag"][0], tag)] for chart in category["chart"]]
    assert shown == [[metric.tag] for metric in METRICS if metric.chart]
    assert [tag for (tag,) in shown][:2] == ["loss/test", "loss/pool"]


def test_the_study_page_is_written_once_and_follows_the_study(tmp_path: Path, grid: list[Run]) -> None:
    folder = tmp_path / "not" / "made yet"
    write_study_page(folder, grid)
    (page,) = folder.iterdir()
    before = (page.read_bytes(), page.stat().st_mtime_ns)
    write_study_page(folder, grid)
    assert list(folder.iterdir()) == [page]
    assert (page.read_bytes(), page.stat().st_mtime_ns) == before
    write_study_page(folder, grid[:1])
    assert not page.stat().st_size, "an open TensorBoard waits forever for a file that was deleted"
    assert len([path for path in folder.iterdir() if path.stat().st_size]) == 1
    assert columns(folder)["repeats"] == [grid[0].repeats]


def test_a_study_folder_that_cannot_be_written_is_one_line(tmp_path: Path, grid: list[Run]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/study: cannot be written: Not a directory"):
        write_study_page(tmp_path / "file" / "study", grid)


def test_the_study_page_leaves_the_runs_alone(tmp_path: Path, grid: list[Run]) -> None:
    start_writer(tmp_path, grid[0], [row(0)]).close()
    before = points(tmp_path, grid[0])
    write_study_page(tmp_path, grid)
    assert before and points(tmp_path, grid[0]) == before
