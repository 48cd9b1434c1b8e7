"""What every process does: claim a chunk and encode it, until enough chunks are encoded."""

import time
from collections.abc import Callable
from pathlib import Path

from data_prep.chunks.encoder import ChunkEncoder
from data_prep.chunks.ledger import Ledger
from data_prep.chunks.plan import Plan
from data_prep.chunks.settlement import settle
from data_prep.data_spec import DataSpec

POLL_SECONDS = 0.1  # between attempts to claim a chunk while other processes encode the last ones
# Called with the ledger, and the tokens and bytes of text in the chunk so far.
Report = Callable[[Ledger, int, int], None]


def encode_chunks(
    spec: DataSpec,
    data_dir: Path,
    plan: Plan,
    all_cores: bool,
    stop: Callable[[], bool] = lambda: False,
    report: Report = lambda ledger, tokens, text_bytes: None,
) -> bool:
    """Encode chunks until enough are encoded or `stop` returns true. Returns whether enough are encoded.

    Any number of processes can call this function for the same build. all_cores: whether this process encodes with one thread per core.
    Raises InputError if the corpus cannot be used or the disk is full.
    """
    ledger = Ledger(spec, data_dir, plan)
    encoder: ChunkEncoder | None = None
    try:
        while not stop():
            if ledger.is_settled:
                return True
            if (chunk := ledger.claim()) is not None:
                encoder = encoder or ChunkEncoder(ledger, all_cores)
                encoder.encode(chunk, stop, lambda tokens, text_bytes: report(ledger, tokens, text_bytes))
                ledger.release(chunk)
            elif ledger.is_finished:
                with ledger.settling():
                    if not ledger.is_settled:
                        settle(ledger)
            else:
                report(ledger, 0, 0)
                time.sleep(POLL_SECONDS)
        return ledger.is_settled
    finally:
        ledger.close()
