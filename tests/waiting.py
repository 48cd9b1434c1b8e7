"""Waiting for other processes. A busy machine may pause any of them for seconds, so the limits are generous."""

import time
from collections.abc import Callable

PATIENCE = 600.0  # seconds; only a test that fails waits this long


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true; fail after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not true within {PATIENCE:g} s"
        time.sleep(0.02)
