"""Work shared by processes: results in order, and an end to everything where one of them fails or dies."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dataloaders.processes import ITEMS_AHEAD, carry_out
from utils.errors import UserError


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


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
