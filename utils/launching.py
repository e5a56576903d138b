"""Several processes for one script: copies that work together on one run, or runs that do not need each other.

Copies find their place in the environment variables that torchrun sets too: RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT. What these processes do with each other is not known here.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from tempfile import TemporaryFile
from typing import IO

from utils.children import Children, end_with_parent, exit_code, last_words, manner, threads_of_each
from utils.errors import FAILED, discard_output
from utils.interruption import SIGNALS

STOPPED = frozenset(128 + number for number in SIGNALS)
"""Exit codes of what was told to stop."""


# Copies that work together


def launch(num_processes: int) -> None:
    """Let copies of this script do its work, and end as they do; called before anything is computed or written.

    Returns in a copy, in a process of torchrun, which has decided the number, and where one process is enough.

    Raises:
        SystemExit: the copies have ended; with their exit code.
    """
    end_with_parent()
    if num_processes > 1 and not is_launched():
        sys.exit(run_processes(num_processes))


def is_launched() -> bool:
    """Whether this process is one of several, started by `launch` or by torchrun."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def run_processes(num_processes: int) -> int:
    """Run copies of this script, with its command line, on this machine.

    What the first, RANK 0, says is shown. When one fails, this is said, with what it said itself on standard error if
    that was not shown; the others are ended, for they might wait for it for ever.

    Returns:
        0 where all ended so; else the code of the one that failed first; 130 or 143 where they were told to stop.
    """
    port = free_port()
    with ExitStack() as files:
        errors = [None, *(files.enter_context(TemporaryFile()) for _ in range(1, num_processes))]
        with Children() as children:
            copies = [_start_copy(children, rank, num_processes, port, errors[rank]) for rank in range(num_processes)]
            failed: list[subprocess.Popen] = []
            # Who asks twice is in a hurry.
            while children.running and not failed and len(children.signals) < 2:
                failed = [copy for copy in children.watch() if _has_failed(copy, children.signals)]
            # At the same moment: what was ended by a signal did not end because of another.
            failed.sort(key=lambda copy: copy.returncode >= 0)
            if failed:
                rank = copies.index(failed[0])
                _report_failure(f"process {rank} (of 0 to {num_processes - 1})", failed[0], errors[rank])
    return next((code for code in map(exit_code, [*failed, *copies]) if code), 0)


def _report_failure(name: str, copy: subprocess.Popen, errors: IO[bytes] | None) -> None:
    if copy.returncode in STOPPED:
        _say(f"{name} was told to stop", sys.stderr)  # it alone, but all stop at the same step
    elif errors:
        _say(f"{name} {manner(copy)}; it said:\n{last_words(errors)}", sys.stderr)
    elif exit_code(copy) != FAILED:  # with which scripts end that have said why in a sentence
        _say(f"{name} {manner(copy)}", sys.stderr)


def _start_copy(
    children: Children, rank: int, num_processes: int, port: int, errors: IO[bytes] | None
) -> subprocess.Popen:
    environment = _environment_of_each(num_processes) | place_of(rank, num_processes, port)
    output = None if rank == 0 else subprocess.DEVNULL
    return children.start([sys.executable, *sys.argv], environment, stdout=output, stderr=errors)


def _has_failed(process: subprocess.Popen, signals: Sequence[int]) -> bool:
    code = exit_code(process)
    return code != 0 and not (signals and code in STOPPED)


def place_of(rank: int, num_processes: int, port: int) -> dict[str, str]:
    """The environment variables by which one of several processes on this machine finds the others."""
    place = {
        "RANK": rank,
        "WORLD_SIZE": num_processes,
        "LOCAL_RANK": rank,
        "LOCAL_WORLD_SIZE": num_processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    return {name: str(value) for name, value in place.items()}


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Runs that do not need each other


@dataclass(frozen=True)
class SeparateRun:
    """A run of this script in a process of its own.

    Attributes:
        gpu: -1 for the CPU.
        output: what it says.
        begun: seconds, of a clock that only runs forward.
    """

    name: str
    gpu: int
    output: IO[bytes] = field(default_factory=TemporaryFile)
    begun: float = field(default_factory=time.monotonic)


class Queue:
    """Runs of this script, of which some wait, some run, and some have ended.

    Attributes:
        running: process -> run.
        codes: name -> exit code of those that have ended, in that order.

    Args:
        runs: name -> the arguments of the script, given the GPU.
        gpus: one for each that runs at once; -1 for the CPU.
    """

    def __init__(self, runs: Mapping[str, Callable[[int], Sequence[str]]], gpus: Sequence[int]) -> None:
        self.running: dict[subprocess.Popen, SeparateRun] = {}
        self.codes: dict[str, int] = {}
        self._arguments = runs
        self._waiting = deque(runs)
        self._free = deque(gpus[: len(runs)])
        self._most_at_once = len(self._free)

    def is_finished(self) -> bool:
        """Whether all have ended."""
        return len(self.codes) == len(self._arguments)

    def start_next(self, children: Children) -> None:
        """Start runs in their order, as long as there is a GPU that is free."""
        while self._waiting and self._free:
            run = SeparateRun(self._waiting.popleft(), self._free.popleft())
            command = [sys.executable, sys.argv[0], *self._arguments[run.name](run.gpu)]
            environment = _environment_of_each(self._most_at_once)
            process = children.start(command, environment, stdout=run.output, stderr=subprocess.STDOUT)
            self.running[process] = run
            _say(f"{run.name}: begins on {f'GPU {run.gpu}' if run.gpu >= 0 else 'the CPU'}")

    def report(self, ended: Sequence[subprocess.Popen]) -> None:
        """Say how runs have ended, with their last words if they have failed; their GPUs are free then."""
        for process in ended:
            run, code = self.running.pop(process), exit_code(process)
            self._free.append(run.gpu)
            self.codes[run.name] = code
            has_failed = code not in (0, *STOPPED)
            outcome = manner(process) if has_failed else "done" if code == 0 else "stopped"
            seconds = timedelta(seconds=round(time.monotonic() - run.begun))
            num_done = list(self.codes.values()).count(0)
            line = f"{run.name}: {outcome} after {seconds} ({num_done} of {len(self._arguments)} done)"
            _say(f"{line}; it said:\n{last_words(run.output)}" if has_failed else line)
            run.output.close()


def run_side_by_side(runs: Mapping[str, Callable[[int], Sequence[str]]], gpus: Sequence[int]) -> dict[str, int]:
    """Run this script again and again, each time in a process of its own, as many at once as there are `gpus`.

    Says when a run begins, when it ends, and what it said last if it fails. The others go on then.

    Args:
        runs: name -> the arguments of the script, given the GPU.
        gpus: one for each that runs at once; -1 for the CPU.

    Returns:
        Name -> exit code, in the order in which they ended.

    Raises:
        SystemExit: this process was told to stop, which was passed on, and something is left to be done; 143 or 130.
    """
    queue = Queue(runs, gpus)
    with Children() as children:
        while not queue.is_finished() and not children.signals:
            queue.start_next(children)
            queue.report(children.watch())
        if queue.running:
            name = signal.Signals(children.signals[0]).name
            _say(f"{name}: what runs finishes its step, then saves; once more ends it at once")
        while queue.running and len(children.signals) < 2:
            queue.report(children.watch())
    if children.signals and not (queue.is_finished() and STOPPED.isdisjoint(queue.codes.values())):
        sys.exit(128 + children.signals[0])
    return queue.codes


def _environment_of_each(num_processes: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(threads_of_each(num_processes)), **os.environ}


def _say(text: str, stream: IO[str] | None = None) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # Ctrl+C ends whoever reads along (`| tee`) too. What runs is yet to be saved.
        discard_output()
