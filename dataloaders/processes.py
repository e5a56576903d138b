"""One job for many items, shared by several processes.

A process that dies (the system ends some where memory runs out) ends the work with a sentence; nothing waits for it.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import cv2

from utils.errors import UserError
from utils.progress import progress_bar

ITEMS_AHEAD = 16
"""Items handed out for each process before the first of them is done: lists may be millions long."""

Item, Result = TypeVar("Item"), TypeVar("Result")


def carry_out(job: Callable[[Item], Result], items: Sequence[Item], num_workers: int, title: str) -> list[Result]:
    """Do a job for every item, in this or in several processes; results in order.

    Args:
        job: a function that can be pickled, as its items and results.
        num_workers: processes; 0 and 1 work in this one.
        title: of the progress bar.

    Raises: what the first job that fails does, and UserError if a process is ended from outside; what other jobs
    have made stays.
    """
    num_workers = min(num_workers, len(items))
    if num_workers <= 1:
        return [job(item) for item in progress_bar(items, title)]
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(num_workers, context, initializer=_start_worker)
    try:
        with _one_thread_in_new_processes():
            results = _results_in_order(executor, job, items, num_workers * ITEMS_AHEAD)
            return list(progress_bar(results, title, total=len(items)))
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {num_workers} processes was ended from outside, perhaps for want of memory: run again with fewer "
            "--workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _results_in_order(
    executor: Executor, job: Callable[[Item], Result], items: Sequence[Item], most_ahead: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    for item in items:
        if len(waiting) == most_ahead:
            yield waiting.popleft().result()
        waiting.append(executor.submit(job, item))
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _one_thread_in_new_processes() -> Iterator[None]:
    # The processes share the cores already. NumPy's libraries look while they are loaded, before `_start_worker`.
    name = "OMP_NUM_THREADS"
    given = os.environ.get(name)
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def _start_worker() -> None:
    cv2.setNumThreads(1)
    # Ctrl+C reaches every process; the first one then ends the others, which finish the item they are at.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed could tell nobody: its processes would wait for work for good.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
