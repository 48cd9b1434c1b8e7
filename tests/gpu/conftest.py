"""The device of the GPU tests, and runs that are trained on it alone, which the tests compare with."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.resources import Precision, Resources
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.records.outcome import Outcome
from repeat_study.training.trainer import train

STEPS, CONTEXT, SEQUENCES = 32, 64, 8
# The fields in which the lanes differ. The first two lanes have the same recipe, the others have their own. Rounding has little
# effect on these runs: on a CPU, relative noise of 1e-6 in the initial weights changes every loss by less than 1e-5 nats. With a
# learning rate of 1e-2, the same noise changes losses by up to 0.01 nats.
LANES: tuple[dict[str, Any], ...] = (
    {"repeats": 1},
    {"repeats": 4, "repeated_fraction": 0.5, "seed": 1},
    {"repeats": 16, "repeated_fraction": 0.5, "spacing": "uniform", "weight_decay": 1.0, "learning_rate": 4e-3},
    {"repeats": 32, "repeated_fraction": 0.25, "warmup_fraction": 0.2, "gradient_clip": 0.3},
)


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """The device of the tests: "cuda", or "cpu" with REPEAT_STUDY_GPU_TESTS=cpu, which tests the tests without a GPU."""
    if os.environ.get("REPEAT_STUDY_GPU_TESTS") == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU and `pytest -m gpu`; REPEAT_STUDY_GPU_TESTS=cpu runs these tests on the CPU")
    return "cuda"


@pytest.fixture(scope="session")
def resources(device: str) -> Resources:
    """Training on the device in float32 and without compiling, where only the order of sums can change results."""
    return Resources.model_validate({"accelerator": device, "precision": Precision.FLOAT32, "compile": False})


@pytest.fixture(scope="session")
def lanes(study: Study, store: TokenStore) -> list[Run]:
    template = study.runs(StudyTexts(store.fingerprint))[-1]
    evaluation = template.evaluation.model_copy(update={"even_points": 2, "log_points": 0})
    fields = template.model_dump() | {"evaluation": evaluation, "model": "2x32", "context": CONTEXT}
    fields |= {"tokens": STEPS * SEQUENCES * CONTEXT, "sequences_per_step": SEQUENCES}
    return [Run.model_validate(fields | lane) for lane in LANES]


@pytest.fixture(scope="session")
def singles(
    lanes: list[Run], store: TokenStore, resources: Resources, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of the runs, each trained alone on the device."""
    folder = tmp_path_factory.mktemp("singles")
    for run in lanes:
        assert train(run, store, folder, resources=resources) is Outcome.DONE
    return folder
