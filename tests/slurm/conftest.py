"""A real SLURM on this machine for the tests of sweeps, or the reason why there is none."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm.dev_cluster import DevCluster, missing_programs


def require_slurm() -> None:
    """Skip where SLURM is not installed, and fail where it is said to be."""
    if missing := missing_programs():
        reason = f"no SLURM on this machine ({', '.join(missing)} not found)"
        if os.environ.get("REPEAT_STUDY_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[DevCluster]:
    """Two nodes; every SLURM command of the session speaks to them."""
    require_slurm()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders have names too long for sockets
    made = DevCluster(folder / "cluster")
    try:
        made.start(cpus_per_node=3)  # room on one node for what another one loses
        os.environ |= made.environment
        yield made
    finally:
        os.environ.pop("SLURM_CONF", None)
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(true: Callable[[], object], seconds: float = 90.0) -> None:
    """Look until it is so; fails where it never is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds:g} s"
        time.sleep(0.05)
