"""From run directories to tables, figures and a report. pandas, scipy and matplotlib; no torch."""

import os

# Fits have a handful of parameters: threads only wait for each other over them, for 40 s instead of 0.1 s where other
# processes keep the cores busy. Read when scipy's own BLAS is loaded, which nothing before this does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
