"""Two processes that share the work of one, again and again: torch is imported once, each job has forks of its own."""

import importlib
import multiprocessing
import os
import pickle
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from tests.script_runs import ROOT
from utils import distributed
from utils.distributed import joined_processes

PATIENCE = 300
"""Seconds after which they hang, however slow the machine, and whatever else it does."""


class Pair:
    """Starts forks by twos, which find each other as torchrun's processes do; a context manager, which ends them."""

    def __enter__(self) -> "Pair":
        context = multiprocessing.get_context("spawn")
        self._connections, self._processes = [], []
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            self._connections.append(ours)
            self._processes.append(process)
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):  # it may not have begun yet
                os.killpg(process.pid, signal.SIGKILL)  # and its forks
            process.kill()
            process.join()

    def run(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `work(*arguments)` returns in each of two joined processes; `work` is a function of a module."""
        outcomes = self._ask(_join_for, work, *arguments)
        for outcome in outcomes:
            assert not isinstance(outcome, _Failure), outcome.traceback
        return outcomes

    def run_script(self, arguments: list[str], outputs: list[Path], prepare: Callable[[], None] = tuple) -> list[int]:
        """The exit codes of two processes of a script, which write what they say to files.

        Args:
            arguments: the script and its arguments.
            prepare: is called first, in both.
        """
        return self._ask(_become_script, arguments, outputs, prepare)

    def _ask(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for connection in self._connections:
            connection.send((port, work, arguments))
        if not all(connection.poll(PATIENCE) for connection in self._connections):
            # Others shall not receive what these may answer yet.
            self.__exit__()
            self.__enter__()
            raise AssertionError("they hang")
        return [pickle.loads(connection.recv_bytes()) for connection in self._connections]


class _Failure:
    def __init__(self) -> None:
        self.traceback = traceback.format_exc()


def _serve(rank: int, connection: Connection) -> None:
    os.setpgrp()
    torch.set_num_threads(1)
    distributed.LINGERING = 0.2
    importlib.import_module("torch._dynamo")  # DistributedDataParallel needs it: once, not in every fork
    while True:
        port, work, arguments = connection.recv()
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if work is _become_script:
                connection.send_bytes(pickle.dumps(code))
            continue
        place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in place.items()}
        try:
            result = work(*arguments)
        except (Exception, SystemExit):
            result = _Failure()
        # Not `send`, which would share the memory of tensors with a process that is about to end.
        connection.send_bytes(pickle.dumps(result))
        os._exit(0)


def _join_for(work: Callable[..., Any], *arguments: Any) -> Any:
    with joined_processes():
        return work(*arguments)


def _become_script(arguments: list[str], outputs: list[Path], prepare: Callable[[], None]) -> None:
    output = os.open(outputs[int(os.environ["RANK"])], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    prepare()
    sys.argv = arguments
    code: Any = 0
    try:
        runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)
