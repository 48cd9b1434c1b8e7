"""`export`: what it prints, and bad input."""

import shutil
from pathlib import Path

import pytest

from tests.repeat_study_cli.conftest import Invoke

RUN = "1x16-f0.5-R4-s0"


def test_a_run_is_exported_by_label_and_by_folder(trained: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("export", "tiny", RUN, "--to", tmp_path / "a", cwd=trained)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(f"written: {tmp_path}/a/step-64 (") and "trust_remote_code=True" in second
    (folder,) = (trained / "runs" / "tiny").glob(f"{RUN}-*")
    assert invoke("export", folder, "--all-steps", "--to", tmp_path / "b", cwd=trained).returncode == 0
    names = ["README.md", "config.json", "model.safetensors", "modeling_repeat_study.py", "spec.json", "tokenizer.json"]
    for parent in ("a", "b"):
        assert sorted(path.name for path in (tmp_path / parent / "step-64").iterdir()) == [
            *names,
            "tokenizer_config.json",
        ]
    target = tmp_path / "b" / "step-64"
    again = invoke("export", folder, "--all-steps", "--to", tmp_path / "b", cwd=trained)
    assert again.returncode == 0 and again.stdout.startswith(f"unchanged: {target} (")
    (target / "config.json").write_text("{}")
    refused = invoke("export", folder, "--all-steps", "--to", tmp_path / "b", cwd=trained)
    assert refused.returncode == 2 and f"{target}: already exists, with other content" in refused.stderr


def test_a_link_that_leads_nowhere_is_named(trained: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    refused = invoke("export", "tiny", RUN, "--to", tmp_path / "link", cwd=trained)
    assert refused.returncode == 2 and f"{tmp_path}/link: a link to nowhere, which does not exist" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny", RUN), "Missing option '--to'"),
        (("tiny", "nothing", "--to", "out"), "nothing: no run in study 'tiny' has this label, name or folder"),
        (("tiny", RUN, "--to", "out", "--step", "3"), "step-000000003.pt: no such checkpoint"),
        (("tiny", RUN, "--to", "out", "--step", "64", "--all-steps"), "--step and --all-steps exclude each other"),
        (("tiny", "--to", "out"), "tiny: no such folder; specify a run as STUDY RUN or by its folder"),
        (("studies", "--to", "out"), "studies: not a run directory (no spec.json)"),
        (("tiny", RUN, "--to", "studies/tiny.toml"), "studies/tiny.toml: cannot be created: not a folder"),
        (("tiny", RUN, "--to", "/proc/out"), "/proc/out: cannot be created: No such file or directory"),
        (("tiny", RUN, "--to", "out", "--data-dir", "studies"), "no token store here (no manifest.json)"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(
    arguments: tuple[str, ...], message: str, trained: Path, invoke: Invoke
) -> None:
    ended = invoke("export", *arguments, cwd=trained)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and message in ended.stderr
    assert not (trained / "out").exists()


@pytest.mark.parametrize("option", [(), ("--all-steps",)])
def test_a_run_without_checkpoints_cannot_be_exported(
    option: tuple[str, ...], trained: Path, tmp_path: Path, invoke: Invoke
) -> None:
    (folder,) = (trained / "runs" / "tiny").glob(f"{RUN}-*")
    copy = shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("checkpoints"))
    ended = invoke("export", copy, *option, "--to", tmp_path / "out", cwd=trained)
    assert ended.returncode == 2 and "last.ckpt: no such checkpoint; no other weights were kept" in ended.stderr
    assert not (tmp_path / "out").exists()
