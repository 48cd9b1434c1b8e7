"""Encode the chunks of a build with worker processes on this machine."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from data_prep.chunks.ledger import Ledger
from data_prep.chunks.plan import Plan
from data_prep.chunks.worker import encode_chunks
from data_prep.data_spec import DataSpec
from data_prep.errors import InputError

PROCESSES = multiprocessing.get_context("spawn")  # fork is unsafe after the tokenizer has started threads
POLL_SECONDS = 0.2
MOST_RESTARTS = 3  # of killed processes, as long as no chunk is completed in the meantime


def encode_with_processes(
    spec: DataSpec, data_dir: Path, plan: Plan, processes: int, report: Callable[[Ledger], None]
) -> None:
    """Encode chunks with `processes` processes of one thread each until enough are encoded.

    A process that is killed is replaced. Raises InputError if the corpus cannot be used, the disk is full, or processes are killed
    again and again.
    """
    ledger = Ledger(spec, data_dir, plan)
    pool = _Pool(spec, data_dir, plan)
    try:
        for _ in range(processes):
            pool.start()
        restarts, completed = 0, 0
        while pool.workers:
            time.sleep(POLL_SECONDS)
            ledger.advance()
            report(ledger)
            killed = pool.collect()
            restarts = restarts + killed if ledger.next == completed else killed
            completed = ledger.next
            if restarts > MOST_RESTARTS:
                raise InputError(
                    f"{ledger.folder}: processes were killed {restarts} times without completing a chunk (out of memory?);"
                    " try fewer --processes"
                )
            for _ in range(killed):
                pool.start()
    finally:
        pool.end()


class _Pool:
    def __init__(self, spec: DataSpec, data_dir: Path, plan: Plan) -> None:
        self._arguments = spec, data_dir, plan
        self.workers: list[tuple[BaseProcess, Connection]] = []

    def start(self) -> None:
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        # Ctrl-C reaches every process in the terminal, but only this one should react to it. Processes inherit this setting.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        theirs.close()
        self.workers.append((process, ours))

    def collect(self) -> int:
        """Forget processes that have ended, and return how many of them were killed. Raises the error of a process that failed."""
        killed = 0
        for process, pipe in list(self.workers):
            if process.is_alive():
                continue
            self.workers.remove((process, pipe))
            error = None
            with suppress(EOFError):  # the process has sent nothing
                error = pipe.recv()
            pipe.close()
            if error is not None:
                raise error
            if process.exitcode and process.exitcode > 0:
                raise RuntimeError(
                    f"a worker process failed with exit code {process.exitcode}; see its traceback above"
                )
            killed += process.exitcode != 0
        return killed

    def end(self) -> None:
        """Tell the processes to write what they have encoded and to exit, and wait for them."""
        for _, pipe in self.workers:
            pipe.close()
        for process, _ in self.workers:
            process.join()


def _work(pipe: Connection, spec: DataSpec, data_dir: Path, plan: Plan) -> None:
    """Main function of a worker process. Its end of the pipe becomes readable when the other process exits or closes its end."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        encode_chunks(spec, data_dir, plan, all_cores=False, stop=pipe.poll)
    except (InputError, OSError) as error:
        with suppress(OSError):  # the other process has exited
            pipe.send(error)
