"""The token page compares the copied paragraph in clean and repeated runs."""

import re
from pathlib import Path

import pandas as pd
import pytest
from head_runs import BAD, GOOD

from analysis.figures.panels import arms
from analysis.report import collect, token_page
from analysis.report.build import write_report
from analysis.runs import load_runs


def test_the_largest_drops_come_from_the_second_and_later_copies() -> None:
    clean = pd.DataFrame({"copy": [1, 1, 2, 2, 3, 3], "token": list("ababab"), "probability": [0.9] * 6})
    repeated = clean.assign(probability=[0.0, 0.9, 0.5, 0.95, 0.9, 0.2])
    listed = token_page.drops(clean, repeated)
    assert listed.index.tolist() == [5, 2], "copy 1 and tokens whose probability does not fall are left out"
    assert listed[["copy", "token", "clean", "repeated"]].to_numpy().tolist() == [
        [3, "b", 0.9, 0.2],
        [2, "a", 0.9, 0.5],
    ]


@pytest.mark.slow
def test_the_page_puts_the_worst_run_next_to_the_clean_one(with_heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "FIGURES", ("learning_curves",))  # plotting all figures takes seconds
    runs = load_runs(with_heads)
    panel = next(panel for panel in arms(runs.done) if panel.model == "2x64")
    (comparison,) = token_page.comparisons(panel, runs)
    assert comparison.seed == 0 and list(comparison.repeated) == [4, 16], "the highest copying loss first"
    assert comparison.repeated[4].probability.to_numpy() == pytest.approx([*BAD, *GOOD, *BAD])
    page = write_report(with_heads)[1].read_text()
    assert 'href="tokens.html"' in page
    text = (with_heads / "tokens.html").read_text()
    assert "<script" not in text and not re.search(r'(src|href)="', text)
    assert "<b>" not in re.sub(r"<b>copy \d+</b>", "", text), "tokens are escaped"
    assert text.count('<p class="copy">') == 3 * (3 * 3 + 2), "all copies of all runs"
    assert text.count("<details>") == 3
    assert "<u>⇥</u>&lt;b&gt;</span>" in text and "<u>⏎</u>" in text and "<i> </i>&amp;" in text
    assert 'title="87.5%, 0.13 nats"' in text
    assert text.count('<td class="n">87.5%</td><td class="n">25.0%</td>') == 3 * 5


@pytest.mark.parametrize(
    ("token", "visible"),
    [(" a", "<i> </i>a"), ("\n", "<u>⏎</u>"), ("\x00<&", "<u>␀</u>&lt;&amp;"), ('"', "&#34;"), ("é", "é")],
)
def test_white_space_in_tokens_is_visible(token: str, visible: str) -> None:
    assert token_page.visible(token) == visible
