"""What `pip install .` puts on a machine."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from repeat_study.config.copying_text import SHIPPED

ROOT = Path(__file__).parents[1]
PACKAGES = ("data_prep", "repeat_study", "repeat_study_cli", "slurm", "analysis")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    for package in (*PACKAGES, "studies"):
        shutil.copytree(ROOT / package, folder / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder)
    code = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return next((folder / "dist").glob("repeat_study-*.whl"))


def test_the_wheel_holds_every_file_of_every_package_and_the_studies(wheel: Path) -> None:
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    expected |= {f"repeat_study/{path.relative_to(ROOT)}" for path in (ROOT / "studies").glob("*.toml")}
    packaged = set(zipfile.ZipFile(wheel).namelist())
    assert expected <= packaged, f"missing: {expected - packaged}"
    assert {f"{package}/py.typed" for package in PACKAGES} | {
        f"repeat_study/config/copying_texts/{name}.txt" for name in SHIPPED
    } <= packaged
    assert not {name.split("/")[0] for name in packaged if ".dist-info/" not in name} - set(PACKAGES)


def test_the_description_on_a_package_index_has_no_relative_links(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    _, _, description = archive.read(metadata).decode().partition("\n\n")
    links = re.findall(r"\]\(([^)]+)\)", description)
    assert links and all(link.startswith("https://") for link in links), links


def test_the_wheel_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = "import repeat_study; print(repeat_study.__file__, len(repeat_study.load_study('transfer_to_prose').runs()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(site / "repeat_study" / "__init__.py"), "11"], done.stderr
