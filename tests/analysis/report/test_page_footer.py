"""The footer of the page states its date, version and commit."""

import json
import subprocess
from pathlib import Path

import pytest
from written_runs import write_run

from analysis.report import collect, provenance
from analysis.report.build import write_report
from data_prep.token_store import TokenStore
from repeat_study import __version__
from repeat_study.config.run import Run


@pytest.fixture
def on_date(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list whose only entry is today's date. A test may change the entry."""
    date = ["2030-01-02"]
    monkeypatch.setattr(provenance, "today", lambda: date[0])
    monkeypatch.setattr(provenance, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(collect, "FIGURES", ("learning_curves",))
    monkeypatch.setattr(collect, "SECTIONS", ())
    return date


@pytest.fixture
def study_folder(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    for repeats in (1, 4):
        fields = {"model": "2x32", "repeats": repeats, "repeated_fraction": 0.5}
        write_run(tmp_path, runs[0], store, [5.0, 4.5, 4.0], **fields)
    return tmp_path


def footer(folder: Path) -> str:
    page = (folder / "report.html").read_text()
    return page[page.index("<footer>") + len("<footer>") : page.index("</footer>")]


def test_the_page_ends_with_its_date_version_and_commit(study_folder: Path, on_date: list[str]) -> None:
    (run, *_) = sorted(study_folder.glob("2x32-f0.5*"))
    (run / "done.json").unlink()
    rows = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    rows[-1]["time"] = 1_893_553_260.0
    (run / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "sessions.jsonl").write_text('{"step": 0, "precision": "float32", "torch": "2.11.0<b>"}\n')
    write_report(study_folder)
    assert footer(study_folder) == (
        f"Written on 2030-01-02 by repeat-study {__version__} (commit 0123456789ab). The most recent evaluation was on"
        " 2030-01-02 at 03:01 UTC. The runs were trained with torch 2.11.0&lt;b&gt;."
    )


@pytest.mark.parametrize("time", [1e30, None])
def test_an_invalid_time_is_left_out(study_folder: Path, on_date: list[str], time: object) -> None:
    (run, *_) = sorted(study_folder.glob("2x32-f0.5*"))
    (run / "done.json").unlink()
    rows = [json.loads(line) | {"time": time} for line in (run / "timing.jsonl").read_text().splitlines()]
    (run / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(study_folder)
    assert footer(study_folder) == f"Written on 2030-01-02 by repeat-study {__version__} (commit 0123456789ab)."


def test_a_new_date_alone_changes_nothing(
    study_folder: Path, on_date: list[str], runs: list[Run], store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(study_folder)
    page = (study_folder / "report.html").read_bytes()
    stamp = (study_folder / "report.html").stat().st_mtime_ns
    on_date[0] = "2030-01-03"
    with monkeypatch.context() as patch:
        patch.setattr("analysis.report.build.load_runs", None)  # nothing is read
        write_report(study_folder)
    assert (study_folder / "report.html").stat().st_mtime_ns == stamp
    (study_folder / "report.html").unlink()
    write_report(study_folder)
    assert (study_folder / "report.html").read_bytes() == page, "the same report keeps its date"
    write_run(study_folder, runs[0], store, [5.0, 4.5, 4.1], model="2x32", repeats=8, repeated_fraction=0.5)
    write_report(study_folder)
    assert "Written on 2030-01-03 by" in footer(study_folder)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.com"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_footer_has_the_commit_of_a_checkout_and_its_local_changes(tmp_path: Path) -> None:
    assert provenance._checkout_commit(tmp_path) == "", "not a checkout"
    git(tmp_path, "init", "-q")
    assert provenance._checkout_commit(tmp_path) == "", "no commit yet"
    (tmp_path / "law.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance._checkout_commit(tmp_path) == head[:12]
    (tmp_path / "law.py").write_text("a = 2\n")
    assert provenance._checkout_commit(tmp_path) == f"{head[:12]} with local changes"
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert provenance._checkout_commit(inside) == "", "the commit of another project"


def test_the_footer_has_the_commit_of_an_installation_from_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distribution:
        text: str | None = None

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return self.text

    installed = Distribution()
    monkeypatch.setattr(provenance.importlib.metadata, "distribution", lambda name: installed)
    for text in (None, "{", '{"url": "file:///x", "dir_info": {}}', '{"vcs_info": 3}'):
        installed.text = text
        assert provenance._installed_commit() == ""
    installed.text = json.dumps({"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "ab" * 20}})
    assert provenance._installed_commit() == "ab" * 6
