"""Processes that work for this one: one job for many items, and what becomes of them when something ends.

A process that dies (the system ends some where memory runs out) ends the work with a sentence; nothing waits for it.
A process ends with its parent, or when the parent says so. Ctrl+C and the SIGTERM of a scheduler reach all processes of
a run at once: then the parent decides, which may still need the others to finish what it is at.
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
from multiprocessing import resource_tracker
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
            results = results_in_order(executor, job, items, num_workers * ITEMS_AHEAD)
            return list(progress_bar(results, title, total=len(items)))
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {num_workers} processes was ended from outside, perhaps for want of memory: run again with fewer "
            "--workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def results_in_order(
    executor: Executor, job: Callable[[Item], Result], items: Sequence[Item], most_ahead: int
) -> Iterator[Result]:
    """Do a job for every item, of which at most `most_ahead` are begun before the first of them is asked for."""
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
    obey_parent_alone()


# Signals


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait in processes that are started meanwhile, until `obey_parent_alone` sees to them.

    Those for this process arrive too, at the latest afterwards.
    """
    if multiprocessing.get_start_method() == "spawn":
        # Python starts this process when it is first needed, and lets all signals through again as it does.
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_alone() -> None:
    """From a process that was started by another: end with that one, or at its SIGTERM, but at nobody else's.

    macOS does not tell who sent a signal: there every SIGTERM ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watches = [_end_with_parent]
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        watches.append(_end_at_sigterm_of_parent)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # After that, since they inherit which signals are blocked.
    for watch in watches:
        threading.Thread(target=watch, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed could tell nobody: its processes would wait for work for good.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end_at_sigterm_of_parent() -> None:
    # A thread, since the main one may be stuck in a library: that is what a parent ends its processes for.
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
