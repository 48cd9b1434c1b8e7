"""Report the progress of encoding: the share that is done, and the rate."""

import time

from data_prep.chunks.ledger import Ledger
from data_prep.chunks.plan import Plan
from data_prep.data_spec import DataSpec
from data_prep.document_batch import DETAILS, Progress


class EncodingProgress:
    """Calls `progress` with the share of the text that is encoded, and with the rate since this object was created."""

    def __init__(self, spec: DataSpec, plan: Plan, progress: Progress) -> None:
        self._spec, self._plan, self._progress = spec, plan, progress
        self._start = time.monotonic()
        self._first: tuple[int, int] | None = None  # tokens and bytes of text that were encoded before

    def __call__(self, ledger: Ledger, tokens: int = 0, text_bytes: int = 0) -> None:
        """ledger: its totals count the complete chunks. tokens, text_bytes: encoded in the next chunk."""
        tokens, text_bytes = tokens + ledger.tokens, text_bytes + ledger.text_bytes
        if self._first is None:
            self._first = (ledger.tokens, ledger.text_bytes)
            self._start = time.monotonic()
        share = min(1.0, max(tokens / ledger.target, text_bytes / (self._plan.text_bytes or float("inf"))))
        seconds = max(1e-9, time.monotonic() - self._start)
        rates = [(now - before) / seconds for now, before in zip((tokens, text_bytes), self._first, strict=True)]
        details = f"{DETAILS}{rates[1] / 1e6:.1f} MB/s, {rates[0] / 1e6:.2f} M tokens/s" if rates[0] else ""
        self._progress("tokenizing" + details, share)
