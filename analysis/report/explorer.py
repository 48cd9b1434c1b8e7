"""Collect the numbers behind the page's movable figures: curves, head scores and paragraph probabilities of every run.

The page contains them as one JSON object. To keep it small, curves have at most MOST_POINTS points and five decimals, head scores have
two decimals, and probabilities are whole percents. Tables and static figures contain every evaluation.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.panels import DRAWN_FROM, arms
from analysis.figures.style import DARK_SCALE, MARKERS, colors
from analysis.formatting import short_count, size_name
from analysis.intervals import t_quantile
from analysis.measures import fine_tuning
from analysis.measures.headline import Headline, Kind
from analysis.measures.induction_heads import is_present, thresholds
from analysis.runs import Runs
from repeat_study.config.corpora import POOL_DOMAIN
from repeat_study.records.metric import NATS, Direction, Metric
from repeat_study.records.metrics import METRICS, further_test_loss
from repeat_study.records.run_directory import Status

MOST_POINTS = 60  # points per curve
MOST_SEEDS = 4  # per arm, for head scores and paragraphs
MOST_TABLES = 160  # runs with head scores and paragraphs; larger studies show fewer seeds per arm
MOST_FRAMES, FEWEST_FRAMES = 24, 6  # evaluations per run, for head scores and paragraphs
SCALE = 100_000  # the page shows at most three decimals; rounding to so few twice could change the last one
MOST_CHARACTERS = 2_500_000  # for all head scores and paragraphs together
ZERO = 3.0  # R = 0 is drawn this factor to the left of the smallest R above 0
Experiment = tuple[str, Runs]  # the name of a variant or of a study, and its runs
REPEATS = "Repeats R"  # the axis of panels with one arm per R
NEXT_TO = 0.02  # distance between the points of several studies at the same R, in powers of ten


@dataclass(frozen=True)
class Arm:
    """The runs that differ only in their seed: one line in the figures, and one position of the slider."""

    name: str  # such as "R = 30"
    tick: str  # such as "30"
    x: float  # horizontal position
    table: pd.DataFrame  # one row per run
    runs: Runs  # the study or variant that contains them
    line: int = 0  # points of arms with the same number are connected, and compared with the same control


@dataclass(frozen=True)
class Panel:
    """The arms that the page shows together: one model and fraction, or one fine-tuned model."""

    group: str  # the name of the variant or study
    title: str
    axis: str  # the label of the slider and of the horizontal axis
    arms: list[Arm]


@dataclass(frozen=True)
class Selection:
    """The arm in the headline, which the page selects first."""

    values: dict[str, object]  # by column of `Arm.table`
    group: str | None = ""  # None if `names` or `values` identify the arm in any group
    names: frozenset[str] = frozenset()  # runs that the arm contains
    line: int = 0
    metric: str = "test_loss"  # the key of the metric in the headline

    def matches(self, panel: Panel, arm: Arm) -> bool:
        """Whether the arm has these values."""
        same = [column in arm.table and (arm.table[column] == value).all() for column, value in self.values.items()]
        same += [self.group in (None, panel.group), arm.line == self.line, self.names <= set(arm.table.name)]
        return all(same)


def page_data(panels: Sequence[Panel], selection: Selection | None = None) -> str | None:
    """The JSON object for the page; None if there is nothing to move, because no panel has two arms.

    Raises InputError if a record cannot be read.
    """
    panels = [panel for panel in panels if len(panel.arms) > 1]
    if not panels:
        return None
    metrics = _metrics(panels)
    collected = _Collected(metrics, _seeds(panels), _frames(panels))
    content = {
        "metrics": [_metric_record(metric) for metric in metrics],
        "panels": [collected.panel(panel) for panel in panels],
        "runs": collected.runs,
        "grids": collected.grids,
        "texts": collected.texts,
        "scale": SCALE,
        "t": [0, 0, *(round(float(t_quantile(seeds - 1)), 3) for seeds in range(2, 31))],
        "drawnFrom": DRAWN_FROM,
        "start": _start(panels, metrics, selection),
    }
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def of_variants(experiments: Sequence[Experiment], result: Headline | None) -> str | None:
    """`page_data` for the variants of a study, which have separate panels. result: the study's headline."""
    panels = [panel for name, runs in experiments for panel in _panels(name, runs)]
    return page_data(panels, _of_headline(result) if result else None)


def _of_headline(result: Headline) -> Selection:
    arm = result.arm
    if result.kind is Kind.FINE_TUNING:
        return Selection({"model": arm.model, "start": arm.start_repeated})
    if result.kind is Kind.NAMED_POOL:
        return Selection({}, None, result.names, metric=further_test_loss(POOL_DOMAIN).key)
    return Selection(_grid_values(arm), arm.variant if result.kind is Kind.VARIANTS else "")


def _grid_values(arm: pd.Series) -> dict[str, object]:
    return {column: arm[column] for column in ("model", "repeated_fraction", "repeats")}


def of_studies(studies: Sequence[Experiment], arm: pd.Series) -> str | None:
    """`page_data` for several studies. Their arms share a panel where model and fraction are the same.

    arm: the row of `StudyComparison.differences` in the headline.
    """
    together: dict[str, list[tuple[int, Panel]]] = {}
    for line, (name, runs) in enumerate(studies):
        for panel in _panels(name, runs):
            together.setdefault(panel.title, []).append((line, panel))
    panels = []
    for title, entries in together.items():
        together_arms = [
            replace(arm, name=f"{arm.name}, {panel.group}", x=arm.x + line * NEXT_TO, line=line)
            for line, panel in entries
            for arm in panel.arms
        ]
        together_arms.sort(key=lambda arm: (arm.x, arm.line))
        axis = entries[0][1].axis
        if axis != REPEATS:  # every starting point of every study has its own label
            together_arms = [replace(arm, x=float(x), tick=arm.name) for x, arm in enumerate(together_arms)]
        panels.append(Panel("", title, axis, together_arms))
    line = [name for name, _ in studies].index(arm.study)
    return page_data(panels, Selection(_grid_values(arm), line=line))


def _panels(name: str, runs: Runs) -> Iterator[Panel]:
    if runs.fine_tuned is not None:
        yield from _fine_tuning_panels(name, runs)
        if not (runs.table.repeats > 1).any():
            return
    if runs.has_fixed_pool:  # every R has its own f
        for _, table in runs.table.sort_values("parameters_non_embedding").groupby("model", sort=False):
            size = size_name(table.model.iloc[0], table.parameters_non_embedding.iloc[0])
            yield Panel(name, size, REPEATS, _repeats(runs, table))
        return
    for panel in arms(runs.table):
        yield Panel(name, panel.title, REPEATS, _repeats(runs, panel.runs))


def _repeats(runs: Runs, table: pd.DataFrame) -> list[Arm]:
    smallest, arms_found = table.repeats[table.repeats > 1].min(), []
    for repeats, rows in table.groupby("repeats"):
        is_control = bool(rows.is_clean_control.all())
        label, x = f"{repeats}", float(repeats)
        if is_control and runs.has_named_pool:
            label, x = "0", smallest / ZERO
        name = "clean" if is_control and not runs.has_named_pool else f"R = {label}"
        arms_found.append(Arm(name, name.removeprefix("R = "), math.log10(x), rows, runs))
    return arms_found


def _fine_tuning_panels(name: str, runs: Runs) -> Iterator[Panel]:
    table = fine_tuning.starts(runs)
    table = table[table.model.isin(table[table.parent != ""].model)]
    for (size, model), rows in table.groupby(["parameters_non_embedding", "model"]):
        starts = fine_tuning.ordered_starts(rows.start)
        yield Panel(
            name,
            f"{size_name(model, size)}, fine-tuning",
            "Starting point",
            [
                Arm(arm_name, arm_name, float(place), rows[rows.start == start], runs.combined)
                for place, start in enumerate(starts)
                for arm_name in [fine_tuning.with_repeats(start, rows[rows.start == start].parent_repeats)]
            ],
        )


def _metrics(panels: Sequence[Panel]) -> list[Metric]:
    """The metrics that TensorBoard's table of runs lists as results, and the loss on a named pool's domain, if recorded."""
    candidates = [*(metric for metric in METRICS if metric.result), further_test_loss(POOL_DOMAIN)]
    studies = {id(arm.runs): arm.runs for panel in panels for arm in panel.arms}
    recorded = [runs.evaluations for runs in studies.values()]
    return [
        metric
        for metric in candidates
        if any(metric.key in table and table[metric.key].notna().any() for table in recorded)
    ]


def _metric_record(metric: Metric) -> dict[str, str]:
    return {
        "key": metric.key,
        "name": metric.name[0].upper() + metric.name[1:],
        "unit": "nats/token" if metric.unit == NATS else metric.unit,
        "better": {Direction.LOWER: "lower", Direction.HIGHER: "higher"}.get(metric.direction, ""),
    }


def _start(panels: Sequence[Panel], metrics: Sequence[Metric], selection: Selection | None) -> dict[str, int]:
    """The indices of the panel, arm and metric that are selected first.

    They are those of the selection, or the arm with the largest excess in final test loss.
    """
    keys = [metric.key for metric in metrics]
    for place, panel in enumerate(panels):
        for index, arm in enumerate(panel.arms):
            if selection and selection.matches(panel, arm):
                metric = keys.index(selection.metric) if selection.metric in keys else 0
                return {"panel": place, "arm": index, "metric": metric}
    largest, start = 0.0, {"panel": 0, "arm": len(panels[0].arms) - 1, "metric": 0}
    for place, panel in enumerate(panels):
        losses = [_final_loss(arm) for arm in panel.arms]
        for index, loss in enumerate(losses):
            if loss - losses[0] > largest:
                largest, start = loss - losses[0], {"panel": place, "arm": index, "metric": 0}
    return start


def _final_loss(arm: Arm) -> float:
    """The mean final test loss of the finished runs; NaN if no run has finished."""
    done = arm.table[arm.table.status == Status.DONE]
    return float(done.final_test_loss.mean()) if len(done) else float("nan")


def _seeds(panels: Sequence[Panel]) -> int:
    """The number of seeds per arm whose head scores and paragraphs the page contains."""
    arms_count = sum(len(panel.arms) for panel in panels)
    return int(np.clip(MOST_TABLES // arms_count, 1, MOST_SEEDS))


def _frames(panels: Sequence[Panel]) -> int:
    """The number of evaluations per run whose head scores and paragraphs fit into MOST_CHARACTERS."""
    characters = 0  # per evaluation, over all runs
    for panel in panels:
        shown = [(arm.runs, str(name)) for arm in panel.arms for name in _shown(arm, _seeds(panels)).name]
        runs, name = shown[0]
        sizes = (len(runs.last_table(name, "heads")), len(runs.last_table(name, "paragraph")))
        characters += 2 * len(shown) * sum(sizes)
    return int(np.clip(MOST_CHARACTERS // max(characters, 1), FEWEST_FRAMES, MOST_FRAMES))


def _shown(arm: Arm, seeds: int) -> pd.DataFrame:
    """The runs whose head scores and paragraph the page contains."""
    return arm.table.sort_values(["seed", "pool_seed"]).drop_duplicates("seed").head(seeds)


def thinned_indices(length: int, most: int) -> list[int]:
    """At most `most` evenly spaced indices of a list, including the first and the last."""
    return sorted({int(index) for index in np.linspace(0, length - 1, min(length, most)).round()})


class _Collected:
    """The lists that panels refer to by index, without duplicates: runs, grids of training tokens, and texts."""

    def __init__(self, metrics: Sequence[Metric], seeds: int, frames: int) -> None:
        self._metrics, self._seeds, self._frames = metrics, seeds, frames
        self.runs: list[dict[str, Any]] = []
        self.grids: list[list[int]] = []
        self.texts: list[dict[str, list[Any]]] = []
        self._index: dict[str, int] = {}  # of a run, by its folder
        # Thresholds of induction heads, by the id of a `Runs` and by run
        self._thresholds_of: dict[int, dict[str, float]] = {}

    def panel(self, panel: Panel) -> dict[str, Any]:
        """A panel with the indices of its runs."""
        of_arm = [index for index, arm in enumerate(panel.arms) if not _is_control(arm)]
        light, dark = colors(of_arm), colors(of_arm, DARK_SCALE)
        content = []
        for index, arm in enumerate(panel.arms):
            shown = set(_shown(arm, self._seeds).name)
            pool = arm.table.pool_tokens.unique()
            entry = {
                "name": arm.name,
                "tick": arm.tick,
                "x": round(arm.x, 4),
                "line": arm.line,
                "runs": [
                    self._run(arm.runs, str(run.name), int(run.seed), run.name in shown)
                    for run in arm.table.itertuples()
                ],
            }
            if index in light:
                place = of_arm.index(index)
                entry |= {"color": _hex(light[index]), "dark": _hex(dark[index]), "style": place % len(MARKERS)}
            if len(pool) == 1 and not _is_control(arm):
                entry["pool"] = short_count(int(pool[0]))
            content.append(entry)
        return {"group": panel.group, "title": panel.title, "axis": panel.axis, "arms": content}

    def _thresholds(self, runs: Runs) -> dict[str, float]:
        if id(runs) not in self._thresholds_of:
            self._thresholds_of[id(runs)] = thresholds(runs)
        return self._thresholds_of[id(runs)]

    def _run(self, runs: Runs, name: str, seed: int, with_tables: bool) -> int:
        folder = f"{runs.folder.resolve()}/{name}"
        if folder not in self._index:
            self._index[folder] = len(self.runs)
            self.runs.append(self._record(runs, name, seed, with_tables))
        return self._index[folder]

    def _record(self, runs: Runs, name: str, seed: int, with_tables: bool) -> dict[str, Any]:
        curve = runs.curve(name)
        kept = thinned_indices(len(curve), MOST_POINTS) if len(curve) else []
        record: dict[str, Any] = {
            "name": name,
            "seed": seed,
            "grid": _place(self.grids, curve.tokens.iloc[kept].tolist()),
        }
        # Not every study records every metric.
        record["values"] = [
            _scaled(curve[metric.key].iloc[kept]) if metric.key in curve else [None] * len(kept)
            for metric in self._metrics
        ]
        if not with_tables or not kept:
            return record
        frames = [kept[place] for place in thinned_indices(len(kept), self._frames)]
        record["frames"] = [kept.index(frame) for frame in frames]
        measured = runs.head_scores(name)
        if measured is not None and len(measured[0]) == len(curve):
            scores, halves = (values[frames] for values in measured)
            record["heads"] = [*scores.shape[1:], _two_digits(scores)]
            if (threshold := self._thresholds(runs).get(name)) is not None:
                record["threshold"] = round(threshold, 3)
                present = is_present(scores, halves, threshold).reshape(len(frames), -1)
                record["induction"] = [np.flatnonzero(heads).tolist() for heads in present]
        tokens, copies, losses = runs.paragraph_losses(name)
        if len(losses) == len(curve):
            record["text"] = _place(self.texts, {"tokens": tokens, "copies": copies})
            record["paragraph"] = _two_digits(np.exp(-losses[frames]))
        return record


def _is_control(arm: Arm) -> bool:
    """Whether an arm has the style of clean runs."""
    return arm.name == fine_tuning.SCRATCH or bool((arm.table.is_clean_control & (arm.table.parent == "")).all())


def _place(known: list[Any], entry: Any) -> int:
    """The index of an entry in a list, which is extended if necessary."""
    if entry not in known:
        known.append(entry)
    return known.index(entry)


def _scaled(values: pd.Series) -> list[int | None]:
    """Values as multiples of 1/SCALE, None if a value is not finite."""
    return [None if not math.isfinite(value) else round(SCALE * value) for value in values.astype(float)]


def _two_digits(shares: np.ndarray) -> str:
    """Shares from 0 to 1 as two decimals each, without separators; 1 becomes 99."""
    digits = np.clip(np.round(100 * shares.ravel()), 0, 99).astype(int)
    return "".join(map("{:02d}".format, digits))


def _hex(color: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in color[:3])
