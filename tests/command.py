"""Calls of the command in a new process, and studies for them."""

import json
import subprocess
import sys
from pathlib import Path

from tests.waiting import PATIENCE

STUDY = """
[training]
tokens = 16_384
context = 32
sequences_per_step = 8
learning_rate = 3e-3

[evaluation]
even_points = 4
test_sequences = 16

[[grid]]
model = "1x16"
repeats = [1, 4]
repeated_fraction = 0.5
"""

CHILD = """
[finetune]
from = "tiny"

[training]
tokens = 8_192
context = 32
sequences_per_step = 8
learning_rate = 3e-3

[evaluation]
even_points = 4
test_sequences = 16

[[grid]]
model = "1x16"
repeats = 1
parent = ["scratch", "clean", {repeats = 4}]
"""


def call(*arguments: object, cwd: Path, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "repeat_study_cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)


def toml(value: object) -> str:
    """A value in TOML syntax."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(list(value) if isinstance(value, tuple) else value)
