"""Write the model card of an exported model: how it was trained, its losses, and how to load it."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from repeat_study import __version__
from repeat_study.formatting import short_count
from repeat_study.probes.checkpoint_probe import TrainedModel
from repeat_study.records.json_lines import Row
from repeat_study.records.metrics import METRICS, further_test_loss

TEMPLATES = Environment(
    loader=PackageLoader("repeat_study.export"),
    autoescape=False,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def model_card(trained: TrainedModel, rows: Sequence[Row], remote_code: bool) -> str:
    """The content of README.md.

    rows: the run's evaluations. remote_code: whether transformers must run the modeling file in the folder.
    """
    run = trained.run
    mixture = run.mixture()
    return TEMPLATES.get_template("model_card.md.j2").render(
        run=run,
        shape=run.shape,
        step=trained.step,
        mixture=mixture,
        tokens=trained.step * run.tokens_per_step,
        vocabulary=trained.model.vocabulary,
        parameters=short_count(run.shape.parameters_non_embedding),
        losses=_losses(trained, rows),
        corpus=trained.store.manifest["built_from"]["source"]["kind"],
        store=trained.store,
        remote_code=remote_code,
        version=__version__,
    )


def _losses(trained: TrainedModel, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Name, value in nats per token and description of every loss that was recorded at this step."""
    row = next((row for row in rows if row["step"] == trained.step), {})
    metrics = [*METRICS, *(further_test_loss(test.name) for test in trained.run.further_tests)]
    losses = [(metric.name, row.get(metric.key), metric.description) for metric in metrics if metric.is_loss]
    return [(label, f"{value:.4f}", description) for label, value, description in losses if value is not None]
