"""Work shared by processes: results in order, an end to all where one fails, and no more memory than they need."""

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dataloaders.processes import ITEMS_AHEAD, carry_out
from tests.faults.programs import wait_for
from utils.errors import UserError

ROOT = Path(__file__).parents[1]


class Counted(list):
    """A list that knows how many of its items were handed out."""

    handed_out = 0

    def __iter__(self) -> Iterator:
        for item in super().__iter__():
            self.handed_out += 1
            yield item


def square(number: int) -> tuple[int, int, str | None]:
    """The square, the process, and the number of threads that its libraries may use."""
    time.sleep(0.05 * (number == 0))
    return number * number, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def fail_at(place: int, folder: Path, number: int) -> None:
    if number == place:
        raise UserError(f"item {number} is bad")
    (folder / str(number)).touch()


def die_at(place: int, number: int) -> None:
    if number == place:
        os.kill(os.getpid(), signal.SIGKILL)


def beat(folder: Path, number: int) -> None:
    """Touch a file again and again, for half a minute."""
    for _ in range(3000):
        (folder / str(number)).touch()
        time.sleep(0.01)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_results_are_in_order_whoever_does_the_work(num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    squares, processes, threads = zip(*carry_out(square, range(50), num_workers, "squares"), strict=True)
    assert list(squares) == [number**2 for number in range(50)]
    assert (set(processes) == {os.getpid()}) == (num_workers < 2)
    # New processes share the cores; this one is left alone.
    assert set(threads) == {"1" if num_workers == 2 else None}
    assert "OMP_NUM_THREADS" not in os.environ


def test_nothing_to_do_and_one_item_need_no_process() -> None:
    assert carry_out(square, [], 4, "squares") == []
    assert [result[:2] for result in carry_out(square, [3], 4, "squares")] == [(9, os.getpid())]


def test_items_are_handed_out_as_they_are_needed_and_a_failure_ends_the_work(tmp_path: Path) -> None:
    items = Counted(range(100_000))
    with pytest.raises(UserError, match="item 3 is bad"):
        carry_out(partial(fail_at, 3, tmp_path), items, 2, "items")
    assert items.handed_out <= 2 * ITEMS_AHEAD + 4
    assert {"0", "1", "2"} <= {path.name for path in tmp_path.iterdir()}


def test_killed_process_ends_the_work_with_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^one of 2 processes was ended from outside.*run again with fewer --workers$"):
        carry_out(partial(die_at, 5), range(1000), 2, "items")


def test_processes_of_a_killed_parent_end(tmp_path: Path) -> None:
    arguments = (partial(beat, tmp_path), range(2), 2, "items")
    parent = multiprocessing.get_context("fork").Process(target=carry_out, args=arguments)
    parent.start()
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    parent.join()
    wait_for(lambda: not are_beating(tmp_path))


def are_beating(folder: Path) -> bool:
    for file in folder.iterdir():
        file.unlink()
    time.sleep(0.5)
    return any(folder.iterdir())


# What a process takes


PAGES = """
import resource

import numpy as np

from dataloaders.loading import build_loader, evaluation_sampler
from utils.memory import return_freed_memory


class Pages:
    def __len__(self):
        return 1

    def __getitem__(self, key):
        before = None
        for _ in range(50):
            np.ones(2**20, np.uint8)
            now = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            before = before or now
        return {"img": np.array(now - before), "name": ""}


assert return_freed_memory()
sampler = evaluation_sampler(Pages(), batch_size=1, keep_last=True)
for num_workers in (0, 1):
    print(int(next(iter(build_loader(Pages(), sampler, num_workers, False)))["img"]) * resource.getpagesize())
"""
"""Tells how much memory the system hands out while arrays of a megabyte come and go, in a process and its worker."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_a_worker_keeps_its_memory_even_where_training_returns_what_it_frees() -> None:
    run = subprocess.run([sys.executable, "-c", PAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    returned, kept = map(int, run.stdout.split())
    assert returned >= 49 * 2**20
    assert kept < 2**20


def test_who_only_reads_or_writes_files_need_not_load_pytorch(tmp_path: Path) -> None:
    """It takes seconds, in every process that helps."""
    code = f"""
import sys
from pathlib import Path
import dataloaders.prepare.__main__, dataloaders.rendered.__main__
from dataloaders.caching import Cache
from dataloaders.nyu_v2 import NYUv2
from dataloaders.rendered import write_nyu_v2
root = Path({str(tmp_path)!r})
write_nyu_v2(root / "frames", {{"train": 2, "test": 1}}, height=32, width=48, seed=0)
for cache in (None, Cache(root / "caches")):
    assert NYUv2(root / "frames", "test", ("seg", "depth"), cache=cache).decoded()[(0, 0)]["img"].shape == (3, 32, 48)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
