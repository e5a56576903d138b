"""Runs scripts as processes of their own that can be killed, without waiting for torch's import each time.

A server process imports what the scripts need and forks for each run. It reads a line of JSON per run from standard
input, and writes its exit status to standard output.
"""

import errno
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass
class ScriptServer:
    """The side that asks for runs; a context manager, which ends the server."""

    _process: subprocess.Popen = field(init=False)

    def __enter__(self) -> "ScriptServer":
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.faults.script_server"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(
        self,
        arguments: list[str],
        output: Path,
        killed_after: float | None = None,
        by: int = signal.SIGKILL,
        dies_at: int | None = None,
        disk_full_at: int | None = None,
    ) -> int:
        """Run a script, perhaps not to its end; returns its exit code, or minus the signal that ended it.

        Args:
            arguments: the script and its arguments.
            output: file that its output is appended to.
            killed_after: seconds until the run gets a signal.
            by: that signal.
            dies_at: the run kills itself just before it flushes or renames a file for the so-many-th time.
            disk_full_at: the run is told then that the disk is full.
        """
        ends = {"killed_after": killed_after, "by": by, "dies_at": dies_at, "disk_full_at": disk_full_at}
        request = {"arguments": arguments, "output": str(output), **ends}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def serve() -> None:
    """The side that runs scripts."""
    import matplotlib.backends.backend_agg  # noqa: F401  what the first figure imports
    import torch
    import torch._dynamo  # and the first optimiser

    import envs.experiment
    import envs.policy_learning
    import envs.retraining  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            become_script(request)
        if request["killed_after"] is not None:
            time.sleep(request["killed_after"])
            os.kill(process, request["by"])
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def become_script(request: dict[str, Any]) -> None:
    """Run the script in this process, and end with it."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if request["dies_at"]:
        at_flush_or_rename(request["dies_at"], die)
    if request["disk_full_at"]:
        at_flush_or_rename(request["disk_full_at"], find_disk_full)
    sys.argv = request["arguments"]
    code = 0
    try:
        runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    os._exit(code)


def at_flush_or_rename(number: int, happen: Callable[[], None]) -> None:
    """Let something happen just before this process flushes or renames a file for the so-many-th time."""
    calls = 0

    def counted(function: Callable) -> Callable:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                happen()
            return function(*arguments)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def die() -> None:
    """What the system does to a process that takes too much memory, or outlives its time."""
    os.kill(os.getpid(), signal.SIGKILL)


def find_disk_full() -> None:
    """What the system says then."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if __name__ == "__main__":
    serve()
