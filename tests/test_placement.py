"""How many processes, and on which GPUs, whatever the machine has."""

import pytest

from tests.test_devices import pretend_gpus
from utils import placement
from utils.errors import UserError
from utils.placement import places_side_by_side, processes_of_run, usable_gpus


@pytest.mark.parametrize(
    ("available", "gpus", "usable"),
    [(4, [2, 0], [2, 0]), (3, None, [0, 1, 2]), (4, [-1], []), (0, [0, 1], []), (0, None, [])],
)
def test_gpus_are_those_named_if_there_are_any(
    monkeypatch: pytest.MonkeyPatch, available: int, gpus: list[int] | None, usable: list[int]
) -> None:
    current = pretend_gpus(monkeypatch, available)
    assert usable_gpus(gpus) == usable
    assert current == [], "no memory is taken of any"


@pytest.mark.parametrize("choose", [usable_gpus, lambda gpus: processes_of_run(gpus, None)])
@pytest.mark.parametrize("gpus", [[2], [0, 7], [-1, 0]])
def test_gpus_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch, choose: object, gpus: list[int]) -> None:
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(UserError, match="this machine has GPUs 0 to 1"):
        choose(gpus)


@pytest.mark.parametrize(
    ("available", "gpus", "processes", "expected"),
    [
        (4, [0], None, 1),
        (4, [0, 1, 3], None, 3),
        (4, [1, 2], 2, 2),
        (4, [-1], None, 1),
        (4, [-1], 3, 3),
        (0, [0, 1, 2, 3], None, 1),
        (0, [0], 2, 2),
        (4, None, None, 1),
        (4, None, 3, 3),
        (0, None, 2, 2),
    ],
)
def test_a_run_has_a_process_for_each_gpu_and_on_the_cpu_as_many_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, available: int, gpus: list[int] | None, processes: int | None, expected: int
) -> None:
    pretend_gpus(monkeypatch, available)
    assert processes_of_run(gpus, processes) == expected


@pytest.mark.parametrize(("gpus", "processes"), [([0], 2), ([0, 1, 2], 2), ([1, 1], None), ([1, 1], 2), (None, 5)])
def test_processes_of_a_run_do_not_share_a_gpu(
    monkeypatch: pytest.MonkeyPatch, gpus: list[int] | None, processes: int | None
) -> None:
    pretend_gpus(monkeypatch, 4)
    found = range(4) if gpus is None else gpus
    with pytest.raises(UserError, match=rf"^--gpus {' '.join(map(str, found))} .*GPU of its own"):
        processes_of_run(gpus, processes)


@pytest.mark.parametrize(
    ("available", "gpus", "parallel", "places", "said"),
    [
        (4, [0, 1, 3], 0, [0, 1, 3], "device: GPUs 0, 1, 3; 3 at once"),
        (3, None, 0, [0, 1, 2], "device: GPUs 0, 1, 2; 3 at once"),
        (4, [0, 2], 4, [0, 2, 0, 2], "device: GPUs 0, 2; 4 at once"),
        (4, [0, 2], 1, [0], "device: GPUs 0; 1 at once"),
        (4, [-1], 3, [-1, -1, -1], "device: CPU, 10 cores; 3 at once"),
        (0, [0, 1], 0, [-1] * 5, "device: CPU, 10 cores; 5 at once"),
    ],
)
def test_runs_side_by_side_take_the_gpus_in_turns(
    monkeypatch: pytest.MonkeyPatch, available: int, gpus: list[int] | None, parallel: int, places: list[int], said: str
) -> None:
    pretend_gpus(monkeypatch, available)
    monkeypatch.setattr(placement, "num_cores", lambda: 10)
    assert places_side_by_side(gpus, parallel) == (places, said)


def test_one_core_is_enough_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "num_cores", lambda: 1)
    assert places_side_by_side([-1], 0)[0] == [-1]


def test_torchrun_does_not_multiply_what_runs_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="not with torchrun"):
        places_side_by_side([-1], 2)


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes_of_run([-1], 2) == 2
    with pytest.raises(UserError, match="--processes 3: 2 are started already"):
        processes_of_run([-1], 3)


def test_processes_of_torchrun_may_be_more_than_this_machine_has_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 4)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    for gpus in (None, [0, 1, 2, 3]):
        assert processes_of_run(gpus, 8) == processes_of_run(gpus, None) == 8
    with pytest.raises(UserError, match="--gpus 0 0 with 8 processes: each needs a GPU of its own"):
        processes_of_run([0, 0], 8)
