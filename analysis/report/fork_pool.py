"""Tasks done side by side by forked processes: these read what is loaded already, and send only what a task returns."""

import multiprocessing
import os
import signal
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from multiprocessing.connection import Connection
from typing import TypeVar

T = TypeVar("T")
MOST_PROCESSES = 4  # each holds the figure it draws
PLACE = struct.Struct("I")  # of a task; a pipe hands these out, each in one piece to one process


def processes() -> int:
    """How many to work with: one a core, and one alone where forking is not safe."""
    return min(len(os.sched_getaffinity(0)), MOST_PROCESSES) if sys.platform == "linux" else 1


def side_by_side(tasks: Sequence[Callable[[], T]], here: Collection[int], count: int) -> list[T]:
    """The results of `tasks`, in their order, by `count` processes of which this is one.

    here: places of tasks that share a cache: this process does them, before it helps with the others.
    A task that failed, or was lost with its process, is done again here: the first error in order comes out as it is.
    """
    done = _shared_out(tasks, here, count - 1) if count > 1 else {}
    return [done[place] if place in done else task() for place, task in enumerate(tasks)]


def _shared_out(tasks: Sequence[Callable[[], T]], here: Collection[int], helpers: int) -> dict[int, T]:
    """What was done, by place."""
    fork = multiprocessing.get_context("fork")
    waiting, handing = os.pipe()
    os.write(handing, b"".join(PLACE.pack(place) for place in range(len(tasks)) if place not in here))
    os.close(handing)  # whoever finds the pipe empty is done
    started = []
    try:
        for _ in range(helpers):
            reader, writer = fork.Pipe(duplex=False)
            helper = fork.Process(target=_help, args=(tasks, waiting, reader, writer, os.getpid()), daemon=True)
            started.append((helper, reader))
            helper.start()
            writer.close()
        done = _work(tasks, chain(sorted(here), _handed_out(waiting)), waiting)
        for _, reader in started:
            with suppress(EOFError, OSError):  # the process was killed
                done |= reader.recv()
        return done
    finally:  # also when interrupted: no process is left behind
        os.close(waiting)
        for helper, reader in started:
            reader.close()
            if helper.pid is not None:
                helper.terminate()
                helper.join()


def _work(tasks: Sequence[Callable[[], T]], places: Iterable[int], waiting: int) -> dict[int, T]:
    """Do tasks up to the first that fails, after which nobody begins another."""
    done = {}
    for place in places:
        try:
            done[place] = tasks[place]()
        except Exception:  # it is raised where the task is done again
            for _ in _handed_out(waiting):
                pass
            break
    return done


def _help(tasks: Sequence[Callable[[], T]], waiting: int, reader: Connection, writer: Connection, parent: int) -> None:
    """What a forked process does. Results are sent at the end, when the parent listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the parent, which ends the others, speaks of it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    reader.close()
    places = (place for place in _handed_out(waiting) if os.getppid() == parent)  # else it was killed
    with suppress(BrokenPipeError):
        writer.send(_work(tasks, places, waiting))


def _handed_out(waiting: int) -> Iterator[int]:
    while place := os.read(waiting, PLACE.size):
        yield PLACE.unpack(place)[0]
