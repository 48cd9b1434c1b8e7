"""The list of metrics is consistent. The tests of the probes check that it matches the recorded numbers."""

import subprocess
import sys

from repeat_study.records.metric import Null
from repeat_study.records.metrics import BY_COLUMN, BY_KEY, METRICS, further_test_loss


def test_no_two_metrics_share_a_key_a_column_a_tag_or_a_title() -> None:
    for field in ("key", "column", "tag", "multiplier"):
        values = [value for metric in METRICS if (value := getattr(metric, field))]
        assert len(values) == len(set(values)), field
    assert len({metric.title for metric in METRICS}) == len(METRICS)


def test_every_metric_is_stored_and_has_a_null_or_another_comparison() -> None:
    for metric in METRICS:
        assert metric.key or metric.column
        assert metric.null.description if isinstance(metric.null, Null) else metric.null.compare_with
        assert metric.tag or not (metric.chart or metric.result), f"{metric.name}: charts and results need a tag"


def test_keys_of_nulls_and_intervals_follow_from_the_metric() -> None:
    gain, ov_copying = BY_KEY["copying_gain"], BY_COLUMN["ov_copying"]
    assert (gain.null_key, gain.interval_key, gain.null_column) == ("copying_gain_null", "copying_gain_ci", "")
    assert BY_KEY["copying_score"].null_column == "copying_null"
    assert BY_COLUMN["attribution"].interval_column == "attribution_ci" and BY_COLUMN["attribution"].interval_key == ""
    assert (ov_copying.null_key, ov_copying.null_column, ov_copying.interval_column) == ("", "", "")
    assert further_test_loss("code").key == "test_loss_code"


def test_axis_labels_are_short_lines() -> None:
    assert BY_KEY["random_copying_gain"].axis_label == "copying gain on random\ntokens (nats/token)"
    assert BY_KEY["prefix_matching"].axis_label == "prefix matching,\nbest head"
    assert all(len(line) <= 22 for metric in METRICS if not metric.column for line in metric.axis_label.split("\n"))


def test_the_list_imports_no_large_library() -> None:
    code = "import sys, repeat_study.records.metrics; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "pandas", "pyarrow", "tensorboard", "pydantic"} & set(modules)
