"""Runs of every model family with kept checkpoints, and a private cache for the code in exported folders."""

import pytest
import torch
import transformers

from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.resources import Resources
from repeat_study.config.study import Study
from repeat_study.model.decoder import Decoder
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train

FAMILIES = ("2x32", "2x32-attn", "2x32-qwen")


@pytest.fixture(scope="session")
def families(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    """One trained run per family, by the name of its model, with weights kept at three steps."""
    folder = tmp_path_factory.mktemp("families")
    directories = {}
    run = study.runs(StudyTexts(store.fingerprint))[1]
    evaluation = run.evaluation.model_copy(update={"even_points": 1})
    fields = {"tokens": 8 * run.tokens_per_step, "repeats": 2, "evaluation": evaluation}
    for model in FAMILIES:
        short = run.model_copy(update={"model": model, **fields})
        train(short, store, folder, resources=Resources(keep_checkpoints="log"))
        directories[model] = RunDirectory(folder / short.name)
    return directories


@pytest.fixture(scope="session", autouse=True)
def modules_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where transformers copies the code of exported models before it imports it."""
    transformers.dynamic_module_utils.HF_MODULES_CACHE = str(tmp_path_factory.mktemp("modules"))


@torch.no_grad()
def randomize(model: Decoder) -> Decoder:
    """Draw all weights anew, so that no two of them are similar. In a model that was barely trained, all gains are close to 1."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("gain"):
            parameter.uniform_(0.5, 1.5, generator=generator)
        else:
            parameter.normal_(0, 0.2, generator=generator)
    return model
