"""The commands on a study with a named pool inside a mixture of sources."""

import os
from pathlib import Path

import pytest

from analysis.declared_runs import declared_runs
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.study import Study, load_study
from tests.command import toml
from tests.repeat_study_cli.conftest import Invoke

GRID = """
[[grid]]
model = "1x16"
repeats = [0, 1, 4]
pool_tokens = 1_024
"""


@pytest.fixture
def pools(workplace: Path, study: Study, store: TokenStore) -> Path:
    """A folder with the study `pools`, whose runs repeat a named pool. Other tests have not prepared its stores."""
    (workplace / "data").unlink()
    (workplace / "data").mkdir()
    (workplace / "data" / store.folder.name).symlink_to(store.folder)
    library = Path(os.__file__).parent
    path = workplace / "studies" / "pools.toml"
    data, training = (workplace / "studies" / "tiny.toml").read_text().split("[training]")
    training = training.split("[[grid]]")[0].replace("even_points = 4", "even_points = 1\nlog_points = 0")
    sources = {
        "main": study.data.source.model_dump(),
        "encodings": {"kind": "files", "paths": [str(library / "encodings")]},
    }
    lines = [line for line in data.splitlines() if not line.startswith("source")]
    for (name, source), share in zip(sources.items(), (0.7, 0.3), strict=True):
        lines.append(f'[[data.mix]]\nname = "{name}"\nsource = {toml(source)}\nshare = {share}')
    pool = toml({"kind": "files", "paths": [str(library / name) for name in ("ctypes", "concurrent")]})
    lines += ["[pool]", f"source = {pool}", "max_tokens = 1_000_000", "[training]"]
    path.write_text("\n".join(lines) + training + GRID)
    return workplace


def test_a_named_pool_from_plan_to_data_frames(pools: Path, invoke: Invoke) -> None:
    plan = invoke("plan", "pools", cwd=pools)
    assert plan.returncode == 0 and "1x16-pool1024-R4-s0" in plan.stdout and "25.000%" in plan.stdout, plan.stderr
    assert "Runs with R = 0 train on none of its text." in plan.stdout
    table = plan.stdout.split("encodings")[-1].splitlines()
    counts = {line.split()[0]: line.split()[1:] for line in table if "-s0" in line}
    assert counts["1x16-clean-s0"] == ["11,488", "4,896"] and counts["1x16-pool1024-R4-s0"] == ["8,608", "3,680"]
    entire = invoke("plan", "pools", "--set", "grid.0.pool_tokens='all'", "--set", "grid.0.repeats=[2, 4]", cwd=pools)
    assert (
        "There is no clean control; add runs with repeats = 0." in entire.stdout
        and 'marked "~" are estimates' in entire.stdout
    )
    rows = [line.split() for line in entire.stdout.splitlines() if "-R" in line and "~" in line]
    assert len(rows) == 2 and len({row[5] for row in rows}) == 1 and rows[0][5].startswith("~"), "one pool for all R"
    status = invoke("status", "pools", cwd=pools)
    assert "3 pending" in status.stdout
    prepared = invoke("prepare", "pools", cwd=pools)
    assert prepared.returncode == 0 and all(
        f"source {name}:" in prepared.stdout for name in ("main", "encodings", "pool")
    )
    assert all(
        f"training documents in {pair}: 0 (0 tokens)" in prepared.stdout
        for pair in ("pool that are also in encodings", "pool that are also in main", "encodings that are also in main")
    )
    inspected = invoke("inspect", "pools", cwd=pools)
    assert inspected.stdout.count("token store: ") == 3, inspected.stderr
    run = invoke("sweep", "pools", "--cluster", "debug", cwd=pools)
    assert run.returncode == 0 and run.stdout.count(": done\n") == 3, run.stderr
    provenance = invoke("provenance", "pools", "1x16-pool1024-R4-s0", "--step", 5, cwd=pools)
    rows = [line for line in provenance.stdout.splitlines() if " unique " in line or " pool " in line]
    assert len(rows) == 8 and all(("pool: " in row) == (" pool " in row) for row in rows)
    assert any("main: " in row for row in rows) and any("encodings: " in row for row in rows)
    folder = next((pools / "runs/pools").glob("*pool1024-R4*"))
    assert invoke("probe", folder, cwd=pools).returncode == 0
    runs = load_runs(pools / "runs/pools")
    assert runs.table.repeats.tolist() == [1, 4] and runs.table.is_clean_control.tolist() == [True, False]
    assert runs.table.repeated_fraction.tolist() == [0, 0.25] and runs.table.fixed_pool.tolist() == [0, 32]
    assert runs.table.final_test_loss_pool_domain.notna().all() and set(runs.table.mix) == {"main 0.7, encodings 0.3"}
    assert runs.domain_controls and runs.domain_controls.table.label.tolist() == ["1x16-pool1024-R1-s0"]
    declared = declared_runs(pools / "runs/pools", load_study(pools / "studies/pools.toml"))
    assert {run.name for run in declared} == {path.parent.name for path in pools.glob("runs/pools/*/spec.json")}


@pytest.mark.slow
def test_a_report_on_named_pools(pools: Path, invoke: Invoke) -> None:
    assert invoke("sweep", "pools", "--cluster", "debug", cwd=pools).returncode == 0
    report = invoke("report", "pools", cwd=pools)
    assert report.returncode == 0 and "report: runs/pools/report.html" in report.stdout, report.stderr
