"""Programs that tests run apart from themselves, and see how they end.

A fork of the tests' own process starts in no time. A new one (`python -m tests.faults.programs NAME FOLDER`) takes
seconds, and shows what Python does as it exits.
"""

import fcntl
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType

import numpy as np
from torch.utils.data import Dataset
from torch.utils.data._utils import signal_handling

from dataloaders import loading
from dataloaders.loading import BatchLoader, Key, PassBatchSampler, build_loader
from utils.errors import UserError, exit_on_user_error

ROOT = Path(__file__).parents[2]
PATIENCE = 300
"""Seconds after which a program hangs, however slow the machine."""

SAMPLES_PER_BATCH = 4


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def free_to_lock(path: Path) -> bool:
    """Whether all processes have ended that have inherited the lock of `path`."""
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# Running them


@dataclass(frozen=True)
class Apart:
    """A program that runs in a process group of its own.

    Attributes:
        pid: of its process, and of the group.
        output: the file that holds what it prints, errors too.
        wait: returns its exit code, below 0 for the signal that ended it.
    """

    pid: int
    output: Path
    wait: Callable[[], int]

    def has_said(self, line: str) -> bool:
        return line in self.said().splitlines()

    def said(self) -> str:
        return self.output.read_text()


@contextmanager
def forked(program: Callable[[Path], None], folder: Path) -> Iterator[Apart]:
    """Run a program in a fork of this process; it is killed, if need be, at the end of the block."""
    output = folder / "output"
    output.touch()
    process = multiprocessing.get_context("fork").Process(target=_begin, args=(program, folder, output))
    process.start()

    def wait() -> int:
        process.join(PATIENCE)
        assert process.exitcode is not None, "it hangs"
        return process.exitcode

    try:
        yield Apart(process.pid, output, wait)
    finally:
        process.kill()
        process.join()


@contextmanager
def started(program: Callable[[Path], None], folder: Path, *wrapper: str) -> Iterator[Apart]:
    """Run a program of this file in a new process; it is killed, if need be, at the end of the block."""
    output = folder / "output"
    command = [*wrapper, sys.executable, "-m", __name__, program.__name__, str(folder)]
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=file, stderr=file)
    try:
        yield Apart(process.pid, output, lambda: process.wait(PATIENCE))
    finally:
        process.kill()
        process.wait()


def _begin(program: Callable[[Path], None], folder: Path, output: Path) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)
    # A script that failed in the tests' own process took PyTorch's handler away, which is otherwise set only once.
    signal_handling._SIGCHLD_handler_set = False
    file = output.open("w", buffering=1)
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    sys.stdout = sys.stderr = file
    program(folder)


# The programs. Each tells "ready", once it is where a test may interfere.


class Numbers(Dataset):
    """Samples that hold their index and the process that made them."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, key: Key) -> dict:
        return {"img": np.full(3, key[1]), "process": np.int64(os.getpid()), "name": str(key[1])}


class Stuck(Numbers):
    """Samples that come no more after the first batch of a worker, which is asked for two at once."""

    made = 0

    def __getitem__(self, key: Key) -> dict:
        self.made += 1
        if self.made > SAMPLES_PER_BATCH:
            time.sleep(10 * PATIENCE)
        return super().__getitem__(key)


class Signalled(Numbers):
    """Sends itself the signals of a whole group as it is unpickled in a new worker, before anything else is done."""

    def __init__(self) -> None:
        # Without any state, it would not be told that it is unpickled.
        self.state = "pickled"

    def __setstate__(self, state: dict) -> None:
        signal_this_process()


class Large(Numbers):
    """Samples of 4 MB."""

    def __getitem__(self, key: Key) -> dict:
        return {**super().__getitem__(key), "img": np.zeros(1_000_000, np.float32)}


class OutOfFiles(Numbers):
    """Samples that leave their worker so few files more that it cannot share the batch: to make it takes one or two."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.made = 0

    def __getitem__(self, key: Key) -> dict:
        self.made += 1
        if self.made > SAMPLES_PER_BATCH:
            leave_files(self.left)
        return super().__getitem__(key)


def loader_of(dataset: Dataset, num_workers: int = 2) -> BatchLoader:
    return build_loader(
        dataset, PassBatchSampler(len(dataset), SAMPLES_PER_BATCH, 1, "train"), num_workers, pin_memory=False
    )


def tell_worker(batch: dict, folder: Path) -> None:
    """Say "ready", and who made this batch."""
    (folder / "worker").write_text(str(int(batch["process"][0])))
    print("ready", flush=True)


def leave_files(number: int) -> None:
    """Let this process open so many files more."""
    (lowest,) = {os.dup(0)}
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + number, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def signal_this_process() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)


def train(folder: Path, dataset: Dataset | None = None, num_workers: int = 2) -> None:
    """A run that takes a signal for a request, and needs its workers for a while after it."""
    requests: list[int] = []

    def request(number: int, frame: FrameType | None) -> None:
        requests.append(number)
        os.write(1, b"requested\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request)
    lock = (folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with exit_on_user_error():
        batches = iter(loader_of(dataset or Numbers(), num_workers))
        tell_worker(next(batches), folder)
        while not requests:
            next(batches)
        for _ in range(100):
            next(batches)
        print("saved", flush=True)
        sys.exit(128 + requests[0])


def train_where_workers_are_signalled_as_they_start(folder: Path) -> None:
    start = loading._start_worker

    def signalled_start(worker: int) -> None:
        signal_this_process()
        start(worker)

    loading._start_worker = signalled_start
    train(folder)


def train_with_spawned_worker(folder: Path) -> None:
    """As macOS does."""
    multiprocessing.set_start_method("spawn")
    train(folder, Signalled(), num_workers=1)


def train_on_stuck_workers(folder: Path) -> None:
    train(folder, Stuck())


def be_busy_elsewhere(folder: Path) -> None:
    """A long evaluation, while the workers of training wait."""
    with exit_on_user_error():
        batches = iter(loader_of(Numbers()))
        tell_worker(next(batches), folder)
        time.sleep(10 * PATIENCE)


def evaluate(folder: Path) -> None:
    """A script that does not expect signals."""
    lock = (folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with exit_on_user_error():
        batches = iter(loader_of(Numbers()))
        tell_worker(next(batches), folder)
        for _ in batches:
            pass


def share_without_files(folder: Path) -> None:
    with exit_on_user_error():
        for _ in loader_of(OutOfFiles(left=0)):
            pass


def share_with_one_file(folder: Path) -> None:
    with exit_on_user_error():
        for _ in loader_of(OutOfFiles(left=1)):
            pass


def keep_too_many_batches(folder: Path) -> None:
    """Each takes files of the process that keeps it."""
    kept = []
    with exit_on_user_error():
        batches = iter(loader_of(Numbers()))
        kept.append(next(batches))
        leave_files(50)
        kept.extend(batches)


def lose_a_worker_while_it_ends(folder: Path) -> None:
    with exit_on_user_error():
        batches = iter(loader_of(Numbers()))
        worker = int(next(batches)["process"][0])
        Finalize(None, kill_and_hear_of_it, (worker,), exitpriority=0)
        raise UserError("the reason")


def kill_and_hear_of_it(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    time.sleep(1)


def fill_shared_memory(folder: Path) -> None:
    """In a place where 8 MB of it are all there is."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", "/dev/shm"], check=True)
    with exit_on_user_error():
        for _ in loader_of(Large()):
            pass


def exhaust_memory(folder: Path) -> None:
    """With 1 GB more than the process has already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 1_000_000_000,) * 2)
    kept = []
    with exit_on_user_error():
        while True:
            kept.append(np.empty(100_000_000))


if __name__ == "__main__":
    program_name, program_folder = sys.argv[1:]
    globals()[program_name](Path(program_folder))
