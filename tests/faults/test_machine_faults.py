"""What the machine lacks is told in a sentence; what the program does wrong keeps its traceback."""

import errno
import mmap
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults import programs
from tests.faults.programs import forked
from utils.errors import UserError, exit_on_user_error
from utils.faults import explanation

SHARED_MEMORY = "shared memory, through which data loading processes hand over their batches, is full"
OPEN_FILES = "too many files are open"
GPU_MEMORY = "the GPU's memory is exhausted"
MEMORY = "memory is exhausted"
DISK = "a disk is full, or its quota is used up"
WORKER = "a data loading process died, most often because the system ended it for want of memory"


@contextmanager
def no_file_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_one_file_too_many() -> None:
    with no_file_left():
        os.pipe()


def share_with_one_file_too_many() -> None:
    with no_file_left():
        torch.zeros(3).share_memory_()


def write_to_a_full_disk() -> None:
    with open("/dev/full", "w") as file:
        file.write("a line")


def error_of(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing failed")


# Real ones


@pytest.mark.parametrize(
    ("action", "meaning"),
    [
        (open_one_file_too_many, OPEN_FILES),
        (share_with_one_file_too_many, OPEN_FILES),
        (lambda: np.zeros(1 << 60, np.uint8), MEMORY),
        (lambda: torch.zeros(1 << 60, dtype=torch.uint8), MEMORY),
        (lambda: mmap.mmap(-1, 1 << 60), MEMORY),
        (lambda: bytearray(1 << 60), MEMORY),
        pytest.param(
            write_to_a_full_disk,
            DISK,
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is full"),
        ),
    ],
)
def test_what_runs_out_is_told(action: Callable[[], object], meaning: str) -> None:
    sentence = explanation(error_of(action))
    assert sentence is not None
    assert sentence.startswith(f"{meaning} (")
    assert sentence.endswith("; a training run goes on with --resume")
    assert "\n" not in sentence


def test_a_script_whose_memory_is_limited_ends_with_one_sentence(tmp_path: Path) -> None:
    with forked(programs.exhaust_memory, tmp_path) as program:
        assert program.wait() == 2
        assert program.said().startswith(f"error: {MEMORY} (")
        assert program.said().count("\n") == 1


# As libraries word them


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is"),
            SHARED_MEMORY,
        ),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_7_9_0>: No space left on device (28)"),
            SHARED_MEMORY,
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/dev/shm/sem.mp-x"), SHARED_MEMORY),
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 28. Details are"), SHARED_MEMORY),
        (
            RuntimeError("Too many open files. Communication with the workers is no longer possible. Please increase"),
            OPEN_FILES,
        ),
        (RuntimeError("received 0 items of ancdata"), OPEN_FILES),
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 24. Details are"), OPEN_FILES),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total"), GPU_MEMORY),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere"), GPU_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), GPU_MEMORY),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "checkpoints/latest"), DISK),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), WORKER),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), WORKER),
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details are"), WORKER),
    ],
)
def test_every_wording_is_understood(error: Exception, meaning: str) -> None:
    sentence = explanation(error)
    assert sentence is not None
    assert sentence.startswith(f"{meaning} (")


def test_the_cause_of_an_error_knows_more_than_the_error() -> None:
    error = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    error.__cause__ = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ")
    assert explanation(error) == (
        f"{SHARED_MEMORY} (DataLoader worker (pid 7) is killed by signal: Bus error): give it more room (docker run "
        "--shm-size=8g; mount -o remount,size=8g /dev/shm) or lower dataload.num_workers; a training run goes on with "
        "--resume"
    )


def test_a_long_message_is_cut() -> None:
    sentence = explanation(torch.cuda.OutOfMemoryError("CUDA out of memory. " + 100 * "Of the allocated memory "))
    assert sentence is not None
    assert len(sentence) < 450
    assert "... ): " not in sentence


@pytest.mark.parametrize(
    "error",
    [
        None,
        KeyError("seg"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "frame.png"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("Caught KeyError in DataLoader worker process 0.\nOriginal Traceback\n  raise MemoryError"),
        RuntimeError("DataLoader timed out after 5 seconds"),
        EOFError(),
    ],
)
def test_other_errors_are_left_alone(error: Exception | None) -> None:
    assert explanation(error) is None


# How a script tells them


def test_a_script_tells_the_sentence_and_exits_with_code_2(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/logs/log.txt")
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {DISK} ([Errno 28] No space left on device: 'runs/logs/log.txt'): make room, or write elsewhere with "
        "--set paths; a training run goes on with --resume\n"
    )


def test_a_user_error_keeps_its_own_sentence(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError("runs/latest: cannot be written; choose another folder") from OSError(errno.ENOSPC, "No space")
    assert capsys.readouterr().err == "error: runs/latest: cannot be written; choose another folder\n"
