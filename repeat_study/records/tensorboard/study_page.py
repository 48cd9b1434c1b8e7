"""Write the study-wide settings for TensorBoard: the columns of the table of runs, and the side-by-side charts.

They are written once, to the study's folder, because TensorBoard takes an experiment's definition from the first run it reads.
"""

from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.records.metrics import METRICS
from repeat_study.records.tensorboard.events import hparams_value, write_events

ALWAYS_SHOWN = {"model", "parameters_non_embedding", "repeats", "repeated_fraction"}  # even if identical in all runs
SHORT_NAMES = {"parameters_non_embedding": "parameters"}  # the table's columns are narrow
LABELS = {"seed", "pool_seed"}  # shown as text, because the order of these numbers is meaningless


def write_study_page(study_dir: Path, runs: Sequence[Run]) -> None:
    """Write the columns and charts for a study to its folder. Writing the same content again changes nothing.

    Raises InputError if the folder cannot be written.
    """
    try:
        study_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{study_dir}: cannot be written: {error.strerror}") from error
    experiment = HParamsPluginData(experiment=_experiment(runs))
    layout = TensorProto(dtype=DT_STRING, string_val=[_layout().SerializeToString()])
    write_events(
        study_dir,
        [
            hparams_value(hparams.EXPERIMENT_TAG, experiment),
            Summary.Value(
                tag=custom_scalars.CONFIG_SUMMARY_TAG,
                metadata=custom_scalars.create_summary_metadata(),
                tensor=layout,
            ),
        ],
    )


def run_factors(run: Run) -> dict[str, str | float]:
    """The fields that can differ between runs in a study, with this run's values."""
    fields = run.model_dump(mode="json", exclude={"evaluation", "corpus"})
    factors = {key: value for key, value in fields.items() if isinstance(value, str | int | float)}
    factors |= {key: str(factors[key]) for key in LABELS}
    if run.fixed_pool:
        factors["pool_tokens"] = run.fixed_pool * run.context
        factors["repeated_fraction"] = float(run.mixture().exact_fraction)
    if run.parent:
        factors["parent"] = run.parent.label
    return factors | {"parameters_non_embedding": run.shape.parameters_non_embedding}


def _experiment(runs: Sequence[Run]) -> Experiment:
    factors = [run_factors(run) for run in runs]
    names = {name: None for factor in factors for name in factor}
    values = {name: sorted({factor[name] for factor in factors if name in factor}) for name in names}
    return Experiment(
        hparam_infos=[_column(name, values[name]) for name in names if name in ALWAYS_SHOWN or len(values[name]) > 1],
        metric_infos=[
            MetricInfo(name=MetricName(tag=metric.tag), display_name=metric.name) for metric in METRICS if metric.result
        ],
    )


def _column(factor: str, values: Sequence[str | float]) -> HParamInfo:
    data_type = DATA_TYPE_STRING if isinstance(values[0], str) else DATA_TYPE_FLOAT64
    name = SHORT_NAMES.get(factor, factor.replace("_", " "))
    info = HParamInfo(name=factor, display_name=name, type=data_type, differs=len(values) > 1)
    info.domain_discrete.extend(values)
    return info


def _layout() -> Layout:
    # TensorBoard treats each of these tags as a regular expression and matches it at the start of a tag.
    charts = [
        Chart(title=metric.title, multiline=MultilineChartContent(tag=[f"^{metric.tag}$"]))
        for metric in METRICS
        if metric.chart
    ]
    return Layout(category=[Category(title="Over trained tokens", chart=charts)])
