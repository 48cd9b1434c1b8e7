"""CSV files of a user's runs."""

from pathlib import Path

import pytest

from analysis.laws.points import read_points
from data_prep.errors import InputError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("params,", "size,"), "missing column params; found size, tokens"),
        (
            ("1e6,1e8,0.5,10,3.4", "1e6,1e8,0.5,10,nan"),
            "line 3: loss is 'nan'; accepted is nats per token, above 0 and up to 100",
        ),
        (("1e6,1e8,0.5,10,3.4", "1e6,1e8,1.5,10,3.4"), "line 3: fraction is '1.5'; accepted is a number from 0 to 1"),
        (("1e6,1e8,0.5,10,3.4", "1e6,1e8,0,10,3.4"), "line 3: fraction is 0 but repeats is above 1"),
        (("1e6,1e8,0.5,10,3.4", "1e6,1e8,0.5,ten,3.4"), "line 3: repeats is 'ten'; accepted is a number from 1"),
        (("1e6,1e8,0.5,10,3.4", "1e6,1e8,0,1,3.1"), "line 3: the same run as on an earlier line"),
    ],
)
def test_a_bad_csv_is_refused_with_line_and_column(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = "params,tokens,fraction,repeats,loss\n1e6,1e8,0,1,3.1\n1e6,1e8,0.5,10,3.4\n"
    assert change[0] in text
    (path := tmp_path / "runs.csv").write_text(text.replace(*change))
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        read_points(path)
