"""The public names of `data_prep`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data_prep

TABLE = {"source": {"kind": "synthetic", "words": 50}, "max_tokens": 20_000, "test_fraction": 0.1}


def test_a_store_is_built_from_a_table_and_opened_by_its_folder(tmp_path: Path) -> None:
    stages: list[str] = []
    built = data_prep.build_store(TABLE, tmp_path, lambda stage, share: stages.append(stage))
    assert built.train.dtype == np.uint16 and "tokenizing" in stages
    assert data_prep.build_store(data_prep.DataSpec.model_validate(TABLE), str(tmp_path)).folder == built.folder
    assert data_prep.open_store(str(built.folder), verify=True).fingerprint == built.fingerprint
    with pytest.raises(data_prep.InputError, match="no token store here"):
        data_prep.open_store(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, r"data\.max_tokens: input should be greater than 0, found 0$"),
        ({"source": "syntetic"}, r"data\.source: .*'synthetic'"),
        ({"max_token": 1}, r"data\.max_token: extra inputs are not permitted, found 1$"),
    ],
)
def test_an_invalid_table_gives_a_one_line_error(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(data_prep.InputError, match=message) as error:
        data_prep.build_store(TABLE | change, tmp_path)
    assert "\n" not in str(error.value)


def test_every_sequence_of_a_mixture_can_be_read_from_a_store(tmp_path: Path) -> None:
    store = data_prep.build_store(TABLE, tmp_path)
    mixture = data_prep.RepeatMixture(positions=1000, pool=data_prep.pool_size(1000, 0.5, 50), repeats=50, seed=0)
    draw = data_prep.Draw(store, context=15, positions=1000, unit=data_prep.Unit.SEQUENCE, seed=0)
    draw.require(mixture.pool)
    sequences, counts = np.unique(draw.tokens(mixture.at(range(1000))), axis=0, return_counts=True)
    assert sequences.shape[1] == 16
    assert sorted(counts.tolist()) == [1] * 500 + [50] * 10


def test_importing_data_prep_imports_nothing_else_until_a_name_is_used() -> None:
    program = "import sys, data_prep; print([name for name in sys.modules if name.startswith(('data_prep.', 'numpy'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert all(getattr(data_prep, name) is not None for name in dir(data_prep))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        data_prep.nothing  # noqa: B018


def test_preparing_data_needs_neither_torch_nor_rich_nor_pyarrow() -> None:
    program = (
        "import sys, data_prep.prepare, data_prep.draw; print(sorted({'torch', 'rich', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
