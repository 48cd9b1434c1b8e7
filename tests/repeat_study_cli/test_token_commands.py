"""A study of tokens without a tokenizer, from `prepare` to `report`."""

from pathlib import Path

import pytest

from tests.data_prep.test_commands import study
from tests.data_prep.token_files import llm_c
from tests.repeat_study_cli.conftest import Invoke


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded_workers")
def test_a_study_of_tokens_without_a_tokenizer_trains_and_shows_ids(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "corpus").mkdir()
    source = llm_c(tmp_path / "corpus", [[number % 300 + 1, number // 300 + 1, *range(1, 40)] for number in range(900)])
    name = study(tmp_path, source={"kind": "tokens", "paths": ["corpus"], **source}, vocabulary=320)
    none = "tokenizer: none, so tokens are shown as ids"
    run = "1x16-f0.5-R4-s0"
    steps = {
        ("prepare",): (none, "documents,"),
        ("inspect",): (none, "format: llm.c", "bytes per token"),
        ("provenance", run, "--step", "1", "--text"): (none, "train_00000", " 37 38 39 0 "),
        ("run",): ("2 runs: 2 done",),
        ("probe", run): (none, "copies of 6 paragraphs"),
        ("export", run, "--to", "exported"): ("no tokenizer: ", "trust_remote_code=True"),
        ("report",): ("report.html",),
    }
    for (verb, *arguments), shown in steps.items():
        done = invoke(verb, name, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert all(text in done.stdout for text in shown), (verb, done.stdout)
    (report,) = (tmp_path / "runs").glob("*/report.html")
    assert "The training data has no tokenizer." in report.read_text()
    assert report.with_name("tokens.html").is_file()
    (exported,) = (tmp_path / "exported").iterdir()
    assert not list(exported.glob("tokenizer*"))
    card = (exported / "README.md").read_text()
    assert "There is no tokenizer, because the run was trained on token ids." in card and "AutoTokenizer" not in card
