"""Where a run computes, the random state it starts from and goes on with."""

import random
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from utils import devices
from utils.devices import (
    choose_device,
    derived_seed,
    on_device,
    random_states,
    restore_random_states,
    seed_everything,
    to_device,
)
from utils.errors import UserError


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Let PyTorch report so many GPUs; returns the list to which each choice of the current one is added."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: f"Model {gpu}")
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: current.append(gpu))
    return current


@pytest.mark.parametrize("gpus", [None, [0], [3], [0, 1]])
def test_without_cuda_every_choice_is_the_cpu_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, gpus: list[int] | None
) -> None:
    pretend_gpus(monkeypatch, 0)
    device, line = choose_device(gpus)
    assert device == torch.device("cpu")
    assert "no CUDA device" in line
    assert "\n" not in line


def test_minus_one_asks_for_the_cpu_even_beside_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2)
    device, line = choose_device([-1])
    assert device == torch.device("cpu")
    assert "--gpus -1" in line


def test_the_first_gpu_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    current = pretend_gpus(monkeypatch, 3)
    assert choose_device([1]) == (torch.device("cuda", 1), "device: GPU 1, Model 1")
    device, line = choose_device([2, 0])
    assert device == torch.device("cuda", 2)
    assert "0 stay free" in line
    assert current == [1, 2], "nothing is put on GPU 0 by default"
    device, line = choose_device(None)
    assert device == torch.device("cuda", 0)
    assert "1, 2 stay free" in line


def test_each_of_several_processes_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    current = pretend_gpus(monkeypatch, 4)
    monkeypatch.setattr("utils.devices.num_processes", lambda: 2)
    chosen = []
    for number in range(2):
        monkeypatch.setattr("utils.devices.local_rank", lambda number=number: number)
        chosen.append(choose_device([3, 1]))
    assert chosen == [
        (torch.device("cuda", 3), "device: GPU 3, Model 3; 2 processes share the batches"),
        (torch.device("cuda", 1), "device: GPU 1, Model 1; 2 processes share the batches"),
    ]
    assert current == [3, 1]
    with pytest.raises(UserError, match="--gpus names 1 GPUs, fewer than there are processes"):
        choose_device([3])
    assert choose_device(None)[0] == torch.device("cuda", 1)
    assert choose_device([-1])[1].endswith("--gpus -1; 2 processes share the batches")


@pytest.mark.parametrize("gpus", [[2], [0, 7], [-1, 0], [-2]])
def test_gpus_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch, gpus: list[int]) -> None:
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(UserError, match="GPUs 0 to 1"):
        choose_device(gpus)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seed_starts_every_generator() -> None:
    seed_everything(88)
    first, second = draws(), draws()
    seed_everything(88)
    assert draws() == first
    seed_everything(45)
    for number, other in zip(draws(), first, strict=True):
        assert number != other
    assert first != second


def test_derived_seeds_belong_to_their_numbers() -> None:
    seeds = {(seed, iteration): derived_seed(seed, iteration) for seed in range(20) for iteration in range(20)}
    assert len(set(seeds.values())) == 400
    assert all(0 <= seed < 2**32 for seed in seeds.values())
    assert seeds[3, 7] == derived_seed(3, 7)


def test_random_numbers_go_on_where_their_states_were_taken() -> None:
    torch.manual_seed(7)
    torch.rand(3)
    states = random_states()
    expected = torch.rand(5)
    torch.manual_seed(8)
    restore_random_states(states)
    assert torch.equal(torch.rand(5), expected)


def test_a_batch_moves_to_the_device_with_its_names() -> None:
    batch = to_device({"img": torch.ones(2), "own": {"real": torch.ones(3)}, "name": ["a", "b"]}, torch.device("meta"))
    assert batch["img"].device.type == batch["own"]["real"].device.type == "meta"
    assert batch["name"] == ["a", "b"]


class Stream:
    """Notes down what is asked of it, and copies nothing."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events

    def wait_stream(self, other: "Stream") -> None:
        self.events.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a pretended GPU is asked to do."""
    asked: list[str] = []

    def new_stream(device: torch.device) -> Stream:
        asked.append("new stream")
        return Stream("copying", asked)

    def copy(batch: str, device: torch.device) -> str:
        asked.append(f"copy {batch}")
        return batch

    monkeypatch.setattr(torch.cuda, "Stream", new_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("computing", asked))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(asked.append(f"on {stream.name}")))
    monkeypatch.setattr(devices, "to_device", copy)
    devices._copying_stream.cache_clear()
    yield asked
    devices._copying_stream.cache_clear()


GPU = torch.device("cuda")
WAIT = "computing waits for copying"


def test_a_gpu_is_given_the_next_batch_before_it_computes_with_the_last(events: list[str]) -> None:
    for batch in on_device(["a", "b"], GPU):
        events.append(f"compute {batch}")
    first, second = (["on copying", f"copy {batch}"] for batch in "ab")
    assert events == ["new stream", WAIT, *first, WAIT, *second, "compute a", WAIT, "compute b"]
    assert list(on_device(["c"], GPU)) == ["c"]
    assert events.count("new stream") == 1, "memory that was taken for one is not given to another"


def test_what_is_wrong_with_a_batch_is_said_after_the_batches_before(events: list[str]) -> None:
    def batches() -> Iterator[str]:
        yield from ("a", "b")
        raise UserError("c cannot be read")

    on_gpu = on_device(batches(), GPU)
    assert [next(on_gpu), next(on_gpu)] == ["a", "b"]
    with pytest.raises(UserError, match="c cannot be read"):
        next(on_gpu)


def test_without_batches_there_is_nothing_on_a_device(events: list[str]) -> None:
    assert [list(on_device([], device)) for device in (torch.device("cpu"), GPU)] == [[], []]
