"""Output in encodings that lack some characters, and to devices, pipes, links and folders."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.files import write_output
from tests.repeat_study_cli.conftest import Invoke
from tests.waiting import PATIENCE


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


PLAN = ("predict", "--params", "800M", "--tokens", "100B", "--fraction", "0.1")


@pytest.mark.parametrize("encoding", ["iso-8859-1", "ascii", "utf-8", "cp1252"])
def test_characters_that_the_encoding_lacks_are_replaced(tmp_path: Path, encoding: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "repeat_study_cli", *PLAN],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "200"},
        capture_output=True,
    )
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    text = ended.stdout.decode(encoding)
    assert ("R with ≥ 90%" if encoding == "utf-8" else "R with >= 90%") in text
    assert ("▁▁▂" if encoding == "utf-8" else "..:") in text and "?" not in text


def test_a_message_with_characters_that_cannot_be_printed_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "repeat_study_cli", "plan", b"\xff\x1b[31m\r\nstudy"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert ended.returncode == 2 and ended.stderr.count(b"\n") == 1
    assert ended.stderr.startswith(b"repeat-study: studies/??[31m study.toml: no such study")


def test_a_device_is_written_to_and_never_replaced(tmp_path: Path, invoke: Invoke) -> None:
    """The test makes its own device, because a bug could replace the real one if root runs the test."""
    full = tmp_path / "full"
    try:
        os.mknod(full, 0o666 | 0o020000, os.makedev(1, 7))  # like /dev/full
        full.open("wb").close()
    except PermissionError:
        pytest.skip("only root can make devices, and not on every file system")
    ended = invoke(*PLAN, "--json", "full", cwd=tmp_path)
    assert ended.returncode == 2 and ended.stderr == "repeat-study: full: cannot be written: No space left on device\n"
    assert full.is_char_device() and names(tmp_path) == ["full"]


def test_dev_null_can_be_written_to(tmp_path: Path, invoke: Invoke) -> None:
    assert invoke(*PLAN, "--json", "/dev/null", cwd=tmp_path).returncode == 0
    assert Path("/dev/null").is_char_device() and not names(tmp_path)


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_output(tmp_path / "pipe", b"text")
    reader.join(PATIENCE)
    assert received == ["text"] and (tmp_path / "pipe").is_fifo()


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "target")
    for content in (b"new", b"newer"):
        write_output(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "target").read_bytes() == content
    assert names(tmp_path / "folder") == ["target"]


def test_standard_output_is_written_where_the_shell_sends_it(tmp_path: Path) -> None:
    command = f"{sys.executable} -m repeat_study_cli {' '.join(PLAN)} --json /dev/stdout > out"
    assert subprocess.run(command, shell=True, cwd=tmp_path).returncode == 0
    text = (tmp_path / "out").read_text()
    assert text.startswith("At the same fraction") and text.endswith("written: /dev/stdout\n")
    assert json.loads(text[text.index("\n{\n") : text.rindex("written:")])["plan"]["params"] == 8e8


@pytest.mark.parametrize("given", ["", ".", "/dev", "circle"])
def test_a_folder_or_a_circular_link_is_refused_as_output_file(tmp_path: Path, invoke: Invoke, given: str) -> None:
    (tmp_path / "circle").symlink_to("circle")
    ended = invoke(*PLAN, "--json", given, cwd=tmp_path)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "a folder; expected a file" in ended.stderr or "circle: cannot be written" in ended.stderr
    with pytest.raises(InputError):
        write_output(tmp_path, b"")
