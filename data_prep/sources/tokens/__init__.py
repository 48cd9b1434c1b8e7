"""Read data that another program has tokenized, without going through text.

To add a format, create a file in this folder with a subclass of `TokenFormat` (see `runs.py`), and add it to FORMATS in `source.py`.
"""

from data_prep.sources.tokens.source import Tokens as Tokens
