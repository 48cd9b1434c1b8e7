"""Laws over sizes leave out one-layer runs, and the report names these runs wherever it uses a law."""

import shutil
from pathlib import Path

import matplotlib.pyplot as plt

from analysis.figures import size_multiplier
from analysis.figures.plot import Plot
from analysis.laws.study_fits import study_points
from analysis.measures.compute_equivalent_loss import lost_compute
from analysis.measures.degradation import summary
from analysis.measures.effective_size import NoLaw, clean_law
from analysis.report import laws_section
from analysis.report.summary import summarize
from analysis.runs import left_out_of_laws, load_runs

LEFT_OUT = (
    "Scaling laws leave out 2 one-layer runs of 1x128 (197k), because one-layer models cannot form induction heads."
)


def test_the_page_names_the_runs_that_its_laws_leave_out(with_heads: Path) -> None:
    runs = load_runs(with_heads)
    assert left_out_of_laws(runs) == LEFT_OUT
    study = summarize(runs, summary(runs))[0]
    assert "11 runs (all finished); 4 model sizes" in study and study.endswith(LEFT_OUT)
    assert len(study_points(runs).points) == 11 - 2
    figure = size_multiplier.plot(runs)
    assert isinstance(figure, Plot) and LEFT_OUT in figure.caption and "through 3 clean runs" in figure.caption
    plt.close(figure.figure)


def test_a_law_with_too_few_sizes_names_the_runs_that_it_leaves_out(with_heads: Path) -> None:
    shutil.rmtree(next(with_heads.glob("2x128-clean*")))
    runs = load_runs(with_heads)
    for law in (clean_law(runs), lost_compute(runs)):
        assert isinstance(law, NoLaw)
        assert "at least 3 sizes, because it has 3 parameters; found 2 (Scaling laws leave out 2 one" in law.reason
    section = laws_section.section(runs)
    text = section.reason if hasattr(section, "reason") else " ".join(section.sentences)
    assert LEFT_OUT.rstrip(".") in text


def test_a_study_of_only_one_layer_models_leaves_nothing_out(with_heads: Path) -> None:
    for folder in with_heads.glob("2x*"):
        shutil.rmtree(folder)
    runs = load_runs(with_heads)
    assert left_out_of_laws(runs) == "" and len(study_points(runs).points) == 2
