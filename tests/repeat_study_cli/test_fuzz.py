"""Commands succeed or print one line and exit with code 2, whatever the arguments and files. They never crash or hang."""

import io
import json
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeat_study_cli import COMMANDS, main
from tests.command import STUDY

settings.register_profile(
    "fuzz",
    deadline=None,  # the first call of a command may import torch
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
fuzz = settings.get_profile("fuzz")

DATA = {"source": {"kind": "files", "paths": ["texts"]}, "vocabulary": 320, "max_tokens": 10**6, "test_fraction": 0.1}
TABLE = tomllib.loads(STUDY) | {"data": DATA}
ODD_TEXTS = [
    *("", " ", "-", "--", "-1", "..", "~", "~nobody/x", "nan", "inf", "1e999", "0x", "[]", "{}", "[[1]]", "a=b", "tiny"),
    *("/dev/null", "/dev/full", "/dev/zero", "/proc/self/mem", "no/such", "x" * 300, "1" * 5000, "\udcff", "\x1b[31m", "a\nb"),
    *("[" * 3000, "a." * 600 + "a=1", "grid.0.model=[[1]]", 'grid.0.model=[["2x16"], {a=1}]', "grid=[]", "grid.0=1"),
    *("grid.0.seed=" + str(list(range(9000))), "training.tokens=" + "9" * 5000, "data.tokenizer=~nobody/x", "name='\\u0000'"),
    *('evaluation.copying_text={file="\\u0000"}', "finetune={from='tiny'}", "finetune.from='\\u0000'", "data=1", "=", "models.x=1"),
    *("evaluate=[{name='a',source={kind='files',paths=['~nobody']}}]", "slurm.partition=[[1]]", "resources.lanes={a=[1]}"),
]  # fmt: skip
characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.sampled_from(ODD_TEXTS) | st.text(characters, max_size=20)
numbers = st.sampled_from(["0", "1", "3", "-5", "nan", "inf", "1e400", "1.5B", "0.1", "800M"]) | texts
studies = st.just("tiny") | texts
OPTIONS: dict[str, dict[str, st.SearchStrategy[str]]] = {
    "plan": {"--processes": numbers, "--lanes": numbers, "--gigaflops": numbers, "--peak": numbers, "--utilisation": numbers}
    | {"--spread-from": texts},
    "prepare": {},
    "inspect": {},
    "provenance": {"--step": numbers},
    "run": {"--processes": numbers, "--lanes": numbers, "--keep-checkpoints": texts},
    "sweep": {"--cluster": st.sampled_from(["slurm", "local", "debug"]) | texts, "--time": texts, "--mem-gb": numbers}
    | {"--nodes": numbers, "--gpus-per-node": numbers},
    "status": {"--stuck-after": numbers, "--every": numbers},
    "resume": {"--time": texts, "--partition": texts},
    "cancel": {},
    "probe": {"--step": numbers, "--text": texts, "--json": texts, "--context": numbers, "--device": texts, "--table": texts}
    | {"--out": texts},
    "compare": {"--out": texts},
    "export": {"--to": texts, "--step": numbers},
    "report": {},
    "predict": {"--params": numbers, "--tokens": numbers, "--fraction": numbers, "--repeats": numbers, "--subset-tokens": numbers}
    | {"--law": texts, "--csv": texts, "--columns": texts, "--json": texts, "--figure": texts, "--table": texts},
    "fit": {"--law": texts, "--columns": texts, "--json": texts},
    "dev-cluster": {"--folder": texts},
}  # fmt: skip
WITH_STUDY = OPTIONS.keys() - {"predict", "fit", "compare", "dev-cluster"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the study `tiny`. `data` is a file, so that no token store can be built."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "tiny.toml").write_text(as_toml(TABLE))
    (tmp_path / "data").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")  # no SLURM
    assert_exits_cleanly("plan", "tiny", code=0)
    yield tmp_path


def as_toml(table: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(key)} = {inline(value)}" for key, value in table.items())


def inline(value: object) -> str:
    """Write a value in TOML syntax on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(inline, value)) + "]" if isinstance(value, list) else json.dumps(value)


def assert_exits_cleanly(*arguments: str, code: int | None = None) -> None:
    """Check that a command, called in this process, succeeds or prints one line and exits with code 2."""
    output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    before = sys.argv
    sys.argv = ["repeat-study", *arguments]
    try:
        with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    line = errors.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert code is None or (ended.value.code or 0) == code, line
    if ended.value.code:
        assert ended.value.code == 2, line
        assert line.startswith("repeat-study: ") and line.count("\n") == 1 and line.endswith("\n"), line


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(sorted(COMMANDS)) | texts)
    if command == "dev-cluster":
        action = draw(texts.filter(lambda text: text.strip() not in ("start", "stop")))
        return [command, "--", action]
    options = OPTIONS.get(command, {}) | ({"--set": texts} if command in WITH_STUDY else {})
    chosen = draw(st.lists(st.sampled_from(sorted(options)), max_size=4)) if options else []
    if command == "predict" and draw(st.booleans()):
        size = draw(st.sampled_from(["--fraction", "--subset-tokens"]))
        chosen = ["--params", "--tokens", size, *chosen]
    values = [f"{name}={draw(options[name])}" for name in chosen]
    positional = [draw(studies)] if command != "predict" and draw(st.integers(0, 9)) else []
    return [command, *positional, *draw(st.lists(texts, max_size=1)), *values]


@settings(fuzz, max_examples=200)
@given(arguments=command_lines())
def test_any_command_line_exits_cleanly(folder: Path, arguments: list[str]) -> None:
    assert_exits_cleanly(*arguments)


@pytest.mark.parametrize("command", sorted(COMMANDS))
@settings(fuzz, max_examples=5)
@given(text=texts)
def test_every_command_is_fuzzed(folder: Path, command: str, text: str) -> None:
    assert command in OPTIONS
    assert_exits_cleanly(command, "--", text)


toml_values = st.recursive(
    st.none().map(lambda _: "") | st.booleans() | st.integers(-(2**70), 2**70) | texts.filter(lambda text: "\udcff" not in text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "kind", "file", "repeats"]), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip


@st.composite
def study_files(draw: st.DrawFn) -> str:
    """A study file in which some values or some characters are replaced."""
    table: dict[str, Any] = tomllib.loads(as_toml(TABLE))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = table
        while isinstance(node, dict | list) and node:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            if not isinstance(node[key], dict | list) or not node[key] or draw(st.booleans()):
                node[key] = draw(toml_values)
                break
            node = node[key]
    table |= draw(
        st.dictionaries(st.sampled_from(["models", "evaluate", "finetune", "resources", "slurm", "x"]), toml_values)
    )
    text = as_toml(table)
    if draw(st.booleans()):
        return text
    start = draw(st.integers(0, len(text)))
    return text[:start] + draw(texts) + text[start + draw(st.integers(0, 5)) :]


@settings(fuzz, max_examples=200)
@given(text=study_files())
def test_any_study_file_exits_cleanly(folder: Path, text: str) -> None:
    (folder / "odd.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert_exits_cleanly("plan", "odd.toml")


cells = st.sampled_from(["1e6", "1M", "0.5", "1", "10", "3.2", "", '"', '"3,5"', "nan", ";", "\x00", "1e999"]) | texts
rows = st.lists(cells, max_size=7).map(",".join)


@settings(fuzz, max_examples=200)
@given(
    lines=st.lists(rows | st.just("1e6,1e9,0.5,10,3.2"), max_size=6),
    header=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_table_of_runs_exits_cleanly(folder: Path, lines: list[str], header: bool, end: str) -> None:
    text = end.join(["params,tokens,fraction,repeats,loss"] * header + lines)
    (folder / "runs.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert_exits_cleanly("fit", "runs.csv")


@settings(fuzz, max_examples=100)
@given(lines=st.lists(rows | st.just("studies,1M,1B,0.5,10,0") | texts.map("{},1M,1B,0,1,0".format), max_size=4))
def test_any_table_of_models_exits_cleanly(folder: Path, lines: list[str]) -> None:
    text = "\n".join(["path,params,tokens,fraction,repeats,seed", *lines])
    (folder / "models.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert_exits_cleanly("probe", "--table", "models.csv", code=2)


SIZES = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), 8)


@settings(fuzz, max_examples=100)
@given(
    config=st.dictionaries(st.sampled_from(["vocab_size", "head_dim", "rope_parameters", "hidden_act"]), toml_values)
)
def test_any_model_configuration_exits_cleanly(folder: Path, config: dict[str, Any]) -> None:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "qwen3"} | SIZES | config))
    (folder / "model" / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")  # without tensors
    assert_exits_cleanly("probe", "model", code=2)
