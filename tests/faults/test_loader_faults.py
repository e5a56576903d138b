"""Workers signalled, killed, orphaned, short of files and memory: no run hangs, and each says what happened."""

import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dataloaders.loading import _end_where_nothing_can_be_sent, _send_error_instead
from dataloaders.processes import obey_parent_alone, signals_held_back
from tests.faults import programs
from tests.faults.programs import Apart, forked, free_to_lock, started, wait_for
from utils.errors import UserError

FEWER_WORKERS = "lower dataload.num_workers; a training run goes on with --resume"


def kill_a_worker(folder: Path) -> None:
    os.kill(int((folder / "worker").read_text()), signal.SIGKILL)


def only_sentence(program: Apart) -> str:
    """The one line that a program has said besides "ready"."""
    lines = [line for line in program.said().splitlines() if line != "ready"]
    assert len(lines) == 1, program.said()
    return lines[0]


def may_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_outlive_the_signals_of_a_group_and_end_with_the_run(number: int, tmp_path: Path) -> None:
    with forked(programs.train, tmp_path) as program:
        wait_for(lambda: program.has_said("ready"))
        os.killpg(program.pid, number)
        assert program.wait() == 128 + number
        assert program.said() == "ready\nrequested\nsaved\n"
        wait_for(lambda: free_to_lock(tmp_path / "lock"))


def test_workers_are_safe_from_signals_from_their_first_moment(tmp_path: Path) -> None:
    with forked(programs.train_where_workers_are_signalled_as_they_start, tmp_path) as program:
        wait_for(lambda: program.has_said("ready"))
        os.kill(program.pid, signal.SIGTERM)
        assert program.wait() == 128 + signal.SIGTERM
        assert program.said() == "ready\nrequested\nsaved\n"


@pytest.mark.faults
def test_a_spawned_worker_is_safe_from_signals_too(tmp_path: Path) -> None:
    with started(programs.train_with_spawned_worker, tmp_path) as program:
        wait_for(lambda: program.has_said("ready"))
        os.killpg(program.pid, signal.SIGTERM)
        assert program.wait() == 128 + signal.SIGTERM
        assert program.said() == "ready\nrequested\nsaved\n"


@pytest.mark.parametrize(("usual", "ours"), [("fork", "fork"), ("spawn", "spawn"), ("forkserver", "fork")])
def test_workers_come_from_no_server(usual: str, ours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows neither which signals are held back here nor which files of a cache are open."""
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: usual)
    assert programs.loader_of(programs.Numbers()).multiprocessing_context.get_start_method() == ours


def test_signals_that_come_while_workers_start_are_not_lost() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    waited = []
    with pytest.raises(KeyboardInterrupt):
        interrupt_within(waited)
    assert waited == ["to the end"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def interrupt_within(waited: list[str]) -> None:
    with signals_held_back():
        # Sent to this thread: any other one, as libraries start them, would take it at once.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        waited.append("to the end")


def test_ctrl_c_ends_a_script_that_does_not_expect_it_with_one_line(tmp_path: Path) -> None:
    with started(programs.evaluate, tmp_path) as program:
        wait_for(lambda: program.has_said("ready"))
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait() == 130
        assert only_sentence(program) == "interrupted"
        wait_for(lambda: free_to_lock(tmp_path / "lock"))


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system does not tell who sent a signal")
def test_a_process_ends_at_the_sigterm_of_its_parent_alone() -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=be_stuck, args=(begun,))
    process.start()
    try:
        assert begun.wait(programs.PATIENCE)
        subprocess.run(["kill", "-TERM", str(process.pid)], check=True)
        process.join(0.3)
        assert process.is_alive()
        process.terminate()
        process.join(programs.PATIENCE)
        assert process.exitcode == 0
    finally:
        process.kill()


def be_stuck(begun: "multiprocessing.Event") -> None:
    obey_parent_alone()
    begun.set()
    # In one call of a library, where Python sees no signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.sigwait({signal.SIGUSR1})


# Kills


@pytest.mark.parametrize("program", [programs.train_on_stuck_workers, programs.be_busy_elsewhere])
def test_a_killed_worker_ends_the_run_with_one_sentence(program: Callable, tmp_path: Path) -> None:
    with forked(program, tmp_path) as run:
        wait_for(lambda: run.has_said("ready"))
        kill_a_worker(tmp_path)
        assert run.wait() == 2
        sentence = only_sentence(run)
        assert sentence.startswith("error: a data loading process died")
        assert sentence.endswith(FEWER_WORKERS)


def test_a_killed_worker_ends_a_script_and_the_other_workers(tmp_path: Path) -> None:
    with started(programs.evaluate, tmp_path) as program:
        wait_for(lambda: program.has_said("ready"))
        kill_a_worker(tmp_path)
        assert program.wait() == 2
        assert only_sentence(program).startswith("error: a data loading process died")
        wait_for(lambda: free_to_lock(tmp_path / "lock"))


def test_a_worker_that_dies_while_its_run_ends_is_not_told_of(tmp_path: Path) -> None:
    with forked(programs.lose_a_worker_while_it_ends, tmp_path) as program:
        assert program.wait() == 2
        assert only_sentence(program) == "error: the reason"


def test_workers_of_a_killed_run_end_at_once_whatever_they_do(tmp_path: Path) -> None:
    with forked(programs.train_on_stuck_workers, tmp_path) as program:
        wait_for(lambda: program.has_said("ready"))
        os.kill(program.pid, signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
        wait_for(lambda: free_to_lock(tmp_path / "lock"))


# Files and memory run out


@pytest.mark.parametrize(
    "program", [programs.share_without_files, programs.share_with_one_file, programs.keep_too_many_batches]
)
def test_too_many_open_files_are_explained(program: Callable, tmp_path: Path) -> None:
    with forked(program, tmp_path) as run:
        assert run.wait() == 2
        sentence = only_sentence(run)
        assert sentence.startswith("error: too many files are open (")
        assert sentence.endswith(f"raise the limit (ulimit -n 65536) or {FEWER_WORKERS}")


@pytest.mark.skipif(not may_mount(), reason="this system lets nobody mount a file system of their own")
def test_full_shared_memory_is_explained(tmp_path: Path) -> None:
    with started(programs.fill_shared_memory, tmp_path, "unshare", "--mount") as program:
        assert program.wait() == 2
        assert "Traceback" not in program.said()
        # Under an older PyTorch, the system ends the worker, which prints a line of its own that ends in a zero byte.
        sentence = program.said().replace("\0", "").splitlines()[-1].strip()
        assert sentence.startswith("error: shared memory, through which data loading processes hand over their batches")
        assert sentence.endswith(FEWER_WORKERS)


def test_a_batch_that_cannot_be_handed_over_is_replaced_by_the_reason() -> None:
    batches: queue.Queue = queue.Queue()
    _send_error_instead(batches, pickle.PicklingError("cannot pickle a lock"), (3, {"img": None}))
    number, error = batches.get_nowait()
    assert number == 3
    assert isinstance(error, UserError)
    assert "could not hand over a batch (PicklingError: cannot pickle a lock)" in str(error)


def test_a_worker_ends_where_nothing_can_be_sent_but_not_for_a_receiver_that_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit, match="24"):
        _send_error_instead(queue.Queue(), OSError(24, "Too many open files"), memoryview(b"half a message"))
    with pytest.raises(SystemExit, match="1"):
        _end_where_nothing_can_be_sent(ValueError, ValueError(), None)
    _end_where_nothing_can_be_sent(EOFError, EOFError(), None)
    _end_where_nothing_can_be_sent(BrokenPipeError, BrokenPipeError(), None)
