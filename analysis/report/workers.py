"""Tasks shared between forked worker processes, which read what this process has loaded and send back results only."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from typing import Any, TypeVar

T = TypeVar("T")
Finished = Callable[[int], None]
MOST_PROCESSES = 4  # each holds a figure in memory
_tasks: Sequence[Callable[[], Any]] = ()  # of a worker, set when it starts


def process_count() -> int:
    """Processes to use: one per core, but only one where forking is not safe."""
    return min(len(os.sched_getaffinity(0)), MOST_PROCESSES) if sys.platform == "linux" else 1


def run_tasks(
    tasks: Sequence[Callable[[], T]], here: Collection[int], processes: int, finished: Finished = lambda place: None
) -> list[T]:
    """The results of `tasks`, in their order, from `processes` processes including this one.

    here: places of the tasks that this process does first, because they share a cache. It then helps with the rest.
    finished: called with the place of every task that succeeded, possibly from another thread.
    Tasks of a killed worker are done here. Raises the first error of a task; no worker is left behind.
    """
    if processes <= 1:
        return [_run_here(tasks, place, finished) for place in range(len(tasks))]
    older = set(multiprocessing.active_children())
    fork = multiprocessing.get_context("fork")
    workers = ProcessPoolExecutor(processes - 1, mp_context=fork, initializer=_start, initargs=(tasks,))
    try:
        futures = {place: workers.submit(_run, place) for place in range(len(tasks)) if place not in here}
        for place, future in futures.items():
            future.add_done_callback(partial(_report, place, finished))
        results = {place: _run_here(tasks, place, finished, futures) for place in sorted(here)}
        for place in reversed(futures):  # from the end, where no worker has begun
            if futures[place].cancel():
                results[place] = _run_here(tasks, place, finished, futures)
        for place, future in futures.items():
            if place not in results:
                try:
                    results[place] = future.result()
                except BrokenProcessPool:
                    results[place] = _run_here(tasks, place, finished)
        return [results[place] for place in range(len(tasks))]
    except BaseException:  # Ctrl-C too
        for process in set(multiprocessing.active_children()) - older:
            process.terminate()
        raise
    finally:
        workers.shutdown(cancel_futures=True)


def _run_here(
    tasks: Sequence[Callable[[], T]], place: int, finished: Finished, futures: Mapping[int, Future[T]] | None = None
) -> T:
    """Do one task in this process, unless a worker's task has failed already: that error is raised."""
    for future in (futures or {}).values():
        if future.done() and not future.cancelled():
            error = future.exception()
            if error and not isinstance(error, BrokenProcessPool):
                raise error
    result = tasks[place]()
    finished(place)
    return result


def _report(place: int, finished: Finished, future: Future[T]) -> None:
    if not future.cancelled() and not future.exception():
        finished(place)


def _start(tasks: Sequence[Callable[[], Any]]) -> None:
    """Set up a worker."""
    global _tasks
    _tasks = tasks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, the workers of a killed report would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os._exit(1)


def _run(place: int) -> Any:
    return _tasks[place]()
