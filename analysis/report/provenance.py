"""State a report's date, the program's version and commit, and the time of the most recent evaluation."""

import importlib.metadata
import json
import os
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import analysis
from analysis.runs import Runs
from repeat_study import __version__
from repeat_study.records.json_lines import last_row
from repeat_study.records.run_directory import RunDirectory

DISTRIBUTION = "repeat-study"


def today() -> str:
    """Today's date in UTC, such as "2026-11-26"."""
    return datetime.now(UTC).date().isoformat()


def sentence(folder: Path, runs: Runs, date: str) -> str:
    """State when and by which version a page was written and, if recorded, the time of the most recent evaluation and torch versions."""
    text = written(date)
    directories = [RunDirectory(folder / str(name)) for name in runs.table.name]
    last_rows = [row for directory in directories if (row := last_row(directory.timing))]
    times = [time for row in last_rows if (time := row.get("time")) and _is_time(time)]
    if times:
        text += f" The most recent evaluation was on {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d at %H:%M} UTC."
    sessions = [row for directory in directories for row in directory.session_rows()]
    versions = sorted({str(version) for row in sessions if (version := row.get("torch"))})
    return text + (f" The runs were trained with torch {' and '.join(versions)}." if versions else "")


def written(date: str) -> str:
    """State when and by which version of the program a page was written."""
    revision = commit()
    return f"Written on {date} by repeat-study {__version__}" + (f" (commit {revision})." if revision else ".")


def _is_time(value: object) -> bool:
    """Whether a recorded value is a time in seconds since 1970 that is small enough to convert to a date."""
    return isinstance(value, int | float) and 0 < value < 253_402_300_800  # start of the year 10000


@cache
def commit() -> str:
    """The first 12 digits of the program's git commit, and a note if files have local changes; empty if the commit is unknown.

    The commit comes from the record that pip writes when it installs from a repository (PEP 610), or else from `git` if the
    program runs from a checkout.
    """
    return _installed_commit() or _checkout_commit(Path(analysis.__path__[0]).resolve().parent)


def _installed_commit() -> str:
    try:
        origin = json.loads(importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        return str(origin["vcs_info"]["commit_id"])[:12]
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return ""


def _checkout_commit(root: Path) -> str:
    """The commit of the checkout at `root`; empty if `root` is not the top folder of a checkout.

    If the program is installed inside another project's checkout, that project's commit is not used.
    """
    if not (root / ".git").exists():
        return ""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        head = git("rev-parse", "HEAD").strip()[:12]
        return head + (" with local changes" if git("status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.SubprocessError):
        return ""
