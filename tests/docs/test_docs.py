"""Check the documentation like code: links, source tags, commands, and TOML and Python examples."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from data_prep.chunks import plan as chunk_plan
from data_prep.sources.tokens.source import FORMATS, Tokens
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.study import Study, load_study
from repeat_study.training.trainer import train
from repeat_study_cli import app
from slurm.allocation import Allocation

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("data_prep", "repeat_study", "repeat_study_cli", "slurm", "analysis", "benchmarks")
TAG = re.compile(r"\[([A-Z]{1,3}\d\d)\b")
# The tables that every study needs. They complete the fragments in the docs.
MINIMAL = {
    "data": {"source": "installed-python", "max_tokens": 20_000_000},
    "training": {"tokens": 1_536_000, "context": 128, "sequences_per_step": 16, "learning_rate": 3e-3},
    "grid": [{"model": "2x32", "repeats": 1}],
}
QUICK = ("plan", "predict")  # commands that need no data and finish within seconds


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Every fenced block of a language, with the name of its page."""
    for page in PAGES:
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            yield page.name, block


def commands(program: str) -> list[list[str]]:
    """The arguments of every call to a program in the pages' shell blocks."""
    lines = [line for _, block in blocks("sh") for line in block.splitlines()]
    split = [shlex.split(line, comments=True) for line in lines]
    return [arguments[1:] for arguments in split if arguments and arguments[0] == program]


def files_with_tags() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")
    yield from (ROOT / "studies").glob("*.toml")
    yield from PAGES


def test_the_readme_stays_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 8 * 1024


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_an_existing_file_or_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", page.read_text()):
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    for file, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]*)\)", page.read_text()):
        if "://" not in file:
            text = (page.parent / file).read_text() if file else page.read_text()
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name}: {file}#{anchor}"


def test_every_source_tag_has_an_entry_with_bibtex() -> None:
    references = (ROOT / "docs" / "references.md").read_text()
    entries = set(re.findall(r"^## (\w+)$", references, re.MULTILINE))
    assert entries == set(re.findall(r"^@\w+\{(\w+),$", references, re.MULTILINE))
    used = {tag: path for path in files_with_tags() for tag in TAG.findall(path.read_text())}
    assert not {tag: path for tag, path in used.items() if tag not in entries}


def test_sources_are_cited_by_tag() -> None:
    spelled_out = re.compile(r"\[[A-Z][a-z]+(?: et al\.| and [A-Z][a-z]+)? (?:19|20)\d\d")
    assert not [
        (path, citations[0]) for path in files_with_tags() if (citations := spelled_out.findall(path.read_text()))
    ]


def test_every_command_in_the_docs_is_accepted_by_the_command_line() -> None:
    group = typer.main.get_command(app)
    documented = commands("repeat-study")
    assert len(documented) > 10
    for arguments in documented:
        context = group.make_context("repeat-study", list(arguments))
        name, command, rest = group.resolve_command(context, list(arguments))  # type: ignore[attr-defined]
        command.make_context(name, rest)  # raises if an option or an argument does not exist


@pytest.mark.parametrize(
    "arguments", [command for command in commands("repeat-study") if command[0] in QUICK and "mine.toml" not in command]
)
def test_quick_commands_of_the_docs_run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    typer.main.get_command(app)(arguments, standalone_mode=False)


def test_every_command_of_the_program_is_in_the_readme_and_no_other() -> None:
    table = (ROOT / "README.md").read_text().split("## Commands")[1].split("## ")[0]
    named = {
        cell.split()[0] for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for cell in row.split("`")[1::2]
    }
    assert named == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_page_on_the_report_lists_every_figure_by_its_title() -> None:
    table = (ROOT / "docs" / "report.md").read_text().split("## Figures")[1].split("## ")[0]
    listed = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)[1:]
    code = "".join(path.read_text() for path in (ROOT / "analysis" / "figures").glob("*.py"))
    titles = re.findall(r"return Plot\(\s*NAME,\s*\"([^\"]+)\"", code)
    assert sorted(listed) == sorted(titles)


def test_every_make_target_in_the_docs_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documented = {argument for arguments in commands("make") for argument in arguments if "=" not in argument}
    assert documented and documented <= targets


@pytest.mark.parametrize(("page", "block"), list(blocks("toml")))
def test_every_toml_block_declares_a_valid_study(page: str, block: str, tmp_path: Path) -> None:
    table = tomllib.loads(block)
    if (slurm := table.get("slurm")) is not None:
        Allocation.model_validate(slurm)
    for study in (ROOT / "studies").glob("*.toml"):
        shutil.copy(study, tmp_path)
    missing = {key: value for key, value in MINIMAL.items() if key not in table}
    path = tmp_path / "mine.toml"
    path.write_text(block + "\n" + "\n".join(_toml(key, value) for key, value in missing.items()))
    assert load_study(path).runs()


def test_the_examples_of_tokenized_data_are_valid_and_there_is_one_for_every_format() -> None:
    rows = re.findall(
        r"^\| `[\w.]+`.*\| `(\{kind = \"tokens\".*\})` \|$", (ROOT / "docs" / "data.md").read_text(), re.MULTILINE
    )
    sources = [Tokens.model_validate(tomllib.loads(f"source = {row}")["source"]) for row in rows]
    assert [source.format for source in sources] == list(FORMATS)


def _toml(key: str, value: object) -> str:
    head, table = (f"[[{key}]]", value[0]) if isinstance(value, list) else (f"[{key}]", value)
    assert isinstance(table, dict)
    return "\n".join([head, *(f"{name} = {entry!r}".replace("'", '"') for name, entry in table.items())])


@pytest.mark.slow
def test_the_python_examples_run(
    workplace: Path, study: Study, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the examples on a study that trains in seconds instead of `laptop`."""
    (workplace / "studies" / "tiny.toml").rename(workplace / "studies" / "laptop.toml")
    for run in study.runs(StudyTexts(store.fingerprint))[:3]:
        train(run, store, workplace / "runs" / "laptop")
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(chunk_plan, "TOKENIZER_CHARACTERS", 200_000)  # training a tokenizer on more takes a minute
    examples = [block for page, block in blocks("python") if page == "python-api.md"]
    assert len(examples) >= 4
    for example in examples:
        exec(compile(example, "docs/python-api.md", "exec"), {})
