"""Options from the [slurm] table, the command line and the user's file."""

import math
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError
from repeat_study.config.resources import Resources
from slurm.allocation import Allocation, check_table, merge_allocation


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("90", 90),
        ("90:30", 91),
        ("8:00:00", 480),
        ("0:59:30", 60),
        ("1-0", 1440),
        ("2-12:30", 3630),
        ("1-00:00:01", 1441),
    ],
)
def test_time_limits_are_parsed_like_sbatch_does(time: str, minutes: int) -> None:
    assert Allocation(time=time).minutes == minutes


def test_options_override_the_study_which_overrides_the_users_file(tmp_path: Path) -> None:
    user = tmp_path / "slurm.toml"
    user.write_text('partition = "theirs"\naccount = "lab"\nmem_gb = 8.0\n')
    merged = merge_allocation({"partition": "study", "mem_gb": 16.0}, {"mem_gb": 32.0, "time": None}, user)
    assert (merged.account, merged.partition, merged.mem_gb) == ("lab", "study", 32.0)
    assert merge_allocation({}, {}, tmp_path / "none.toml") == Allocation()


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"partion": "a"}, "slurm.partion: unknown key; did you mean 'partition'?"),
        ({"time": "soon"}, "time: expected minutes, hours:minutes:seconds or days-hours, found 'soon'"),
        ({"time": "1", "signal_delay_s": 60}, "time: 1 must be longer than signal_delay_s (60 s)"),
        ({"gpus_per_node": -1}, "slurm.gpus_per_node: input should be greater than or equal to 0, found -1"),
        ({"partition": ""}, "slurm.partition: expected a nonempty string without line breaks, found ''"),
        ({"extra": {"a\n#SBATCH -x": "1"}}, "expected a nonempty string without line breaks, found 'a\\n#SBATCH -x'"),
        ({"extra": {"a": {"b": 1}}}, "slurm.extra.a: input should be a valid string, found {b = 1}"),
        ({"extra": {"a": "b\nc"}}, "slurm.extra.a: expected a nonempty string without line breaks, found 'b\\nc'"),
        ({"setup": "module load cuda"}, "slurm.setup: input should be a valid list"),
    ],
)
def test_a_wrong_key_or_value_is_reported(study: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        merge_allocation(study, {}, tmp_path / "none.toml")
    assert message in str(caught.value)


def test_a_table_that_needs_a_longer_time_limit_than_the_default_is_valid_by_itself() -> None:
    check_table({"signal_delay_s": 20_000})
    with pytest.raises(InputError, match=r"slurm.mem_gb: input should be a finite number, found nan"):
        check_table({"mem_gb": math.nan})


def test_an_error_in_the_users_file_names_the_file(tmp_path: Path) -> None:
    user = tmp_path / "slurm.toml"
    for text, message in (
        ("partition = 3", "slurm.toml: partition: input should be a valid string"),
        ("[", "cannot be read"),
        ("x = " + "[" * 5_000, "slurm.toml: cannot be read"),
    ):
        user.write_text(text)
        with pytest.raises(InputError, match=message):
            merge_allocation({}, {}, user)


def test_the_users_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    user = tmp_path / "slurm.toml"
    user.write_text('partition = "gpu"\n', encoding="utf-8-sig")
    assert merge_allocation({}, {}, user).partition == "gpu"


def test_processes_gpus_and_nodes_have_to_match() -> None:
    parameters = Allocation(nodes=2, gpus_per_node=4).parameters(Resources(processes_per_run=8))
    assert (parameters["nodes"], parameters["ntasks_per_node"], parameters["gpus_per_node"]) == (2, 4, 4)
    assert "gpus_per_node" not in Allocation().parameters(Resources())
    with pytest.raises(
        InputError, match=r"4 GPUs on each of 1 nodes for 1 processes; .* resources.processes_per_run=4"
    ):
        Allocation(gpus_per_node=4).parameters(Resources())
    with pytest.raises(InputError, match="processes_per_run=3 does not divide evenly among 2 nodes"):
        Allocation(nodes=2).parameters(Resources(processes_per_run=3))


def test_any_sbatch_option_can_be_given() -> None:
    parameters = Allocation(extra={"reservation": "tonight", "gpu-bind": "none"}, mem_gb=1.5).parameters(Resources())
    assert parameters["additional_parameters"] == {"requeue": True, "reservation": "tonight", "gpu_bind": "none"}
    assert parameters["mem"] == "1536MB"
