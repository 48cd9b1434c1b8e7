"""Make the cells of a table of differences in metrics, with their intervals over seeds."""

from collections.abc import Mapping

import pandas as pd

from analysis.formatting import NOTHING, percent, size_name


def difference_cells(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Text cells, with one row per arm and metric.

    rows: differences with their arms, `metric`, `mean`, `low`, `high` and `seeds`. names: the name of each metric.
    """
    has_interval = (rows.seeds > 1) & rows.low.notna()
    interval = rows.low.map("{:+z.3f}".format) + " to " + rows.high.map("{:+z.3f}".format)
    return pd.DataFrame(
        {
            "model": list(map(size_name, rows.model, rows.parameters_non_embedding)),
            "f": [percent(fraction) if fraction else "clean" for fraction in rows.repeated_fraction],
            "R": rows.repeats,
            "metric": rows.metric.map(names),
            "difference": rows["mean"].map("{:+z.3f}".format),
            "95% interval": interval.where(has_interval, NOTHING),
            "seeds": rows.seeds,
        }
    )
