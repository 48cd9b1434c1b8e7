"""Run tasks in forked worker processes, which inherit the data loaded by this process and send back only results."""

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
MOST_PROCESSES = 4  # each keeps a figure in memory
_tasks: Sequence[Callable[[], Any]] = ()  # set in each worker when it starts


def process_count() -> int:
    """Number of processes to use: one per core, up to MOST_PROCESSES, or a single one if forking is not safe."""
    return min(len(os.sched_getaffinity(0)), MOST_PROCESSES) if sys.platform == "linux" else 1


def run_tasks(
    tasks: Sequence[Callable[[], T]], local: Collection[int], processes: int, finished: Finished = lambda index: None
) -> list[T]:
    """Run `tasks` in `processes` processes, including this one, and return their results in order.

    local: indices of tasks that share a cache. This process runs them first and then helps with the rest.
    finished: called with the index of every task that succeeds, possibly from another thread.
    If a worker is killed, this process runs the remaining tasks. If a task fails, all workers are stopped and its error is raised.
    """
    if processes <= 1:
        return [_run_locally(tasks, index, finished) for index in range(len(tasks))]
    older = set(multiprocessing.active_children())
    fork = multiprocessing.get_context("fork")
    workers = ProcessPoolExecutor(processes - 1, mp_context=fork, initializer=_start, initargs=(tasks,))
    try:
        futures = {index: workers.submit(_run, index) for index in range(len(tasks)) if index not in local}
        for index, future in futures.items():
            future.add_done_callback(partial(_report, index, finished))
        results = {index: _run_locally(tasks, index, finished, futures) for index in sorted(local)}
        for index in reversed(futures):  # from the end, because workers take tasks from the front
            if futures[index].cancel():
                results[index] = _run_locally(tasks, index, finished, futures)
        for index, future in futures.items():
            if index not in results:
                try:
                    results[index] = future.result()
                except BrokenProcessPool:
                    results[index] = _run_locally(tasks, index, finished)
        return [results[index] for index in range(len(tasks))]
    except BaseException:  # including KeyboardInterrupt
        for process in set(multiprocessing.active_children()) - older:
            process.terminate()
        raise
    finally:
        workers.shutdown(cancel_futures=True)


def _run_locally(
    tasks: Sequence[Callable[[], T]], index: int, finished: Finished, futures: Mapping[int, Future[T]] | None = None
) -> T:
    """Run a task in this process. If a worker's task has already failed, its error is raised instead."""
    for future in (futures or {}).values():
        if future.done() and not future.cancelled():
            error = future.exception()
            if error and not isinstance(error, BrokenProcessPool):
                raise error
    result = tasks[index]()
    finished(index)
    return result


def _report(index: int, finished: Finished, future: Future[T]) -> None:
    if not future.cancelled() and not future.exception():
        finished(index)


def _start(tasks: Sequence[Callable[[], Any]]) -> None:
    """Initialize a worker process."""
    global _tasks
    _tasks = tasks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit when the parent ends. Otherwise, if the report were killed, its workers would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os._exit(1)


def _run(index: int) -> Any:
    return _tasks[index]()
