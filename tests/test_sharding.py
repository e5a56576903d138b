"""Which part of the batches each of several processes takes: together all, none twice, whatever their number."""

from collections.abc import Iterable
from itertools import islice

import pytest

from dataloaders.loading import FixedOrderBatchSampler, PassBatchSampler, TaskwiseBatchSampler
from dataloaders.sharding import BatchesInTurns, part_of_every_batch, refuse_unequal_parts
from utils.errors import UserError


def two_domains() -> TaskwiseBatchSampler:
    """Batches of four of one domain, and of the two samples that the other has."""
    return TaskwiseBatchSampler(
        {"real": PassBatchSampler(9, 4, 1, "real"), "clipart": PassBatchSampler(2, 4, 1, "clip")}
    )


def five_batches(sampler: Iterable[list]) -> list[list]:
    batches = list(islice(sampler, 5))
    assert len(batches) == 5
    return batches


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_the_parts_of_a_batch_are_equal_and_make_the_batch(num_parts: int) -> None:
    whole = PassBatchSampler(num_samples=11, batch_size=4, seed=1, split="train", start=1)
    parts = [part_of_every_batch(whole, part, num_parts) for part in range(num_parts)]
    for batch, *of_processes in zip(*map(five_batches, (whole, *parts)), strict=True):
        assert [len(part) for part in of_processes] == [4 // num_parts] * num_parts
        assert [key for part in of_processes for key in part] == batch


def test_of_tasks_with_inputs_of_their_own_each_is_divided() -> None:
    parts = [part_of_every_batch(two_domains(), part, 2) for part in range(2)]
    for batch, *of_processes in zip(*map(five_batches, (two_domains(), *parts)), strict=True):
        for task, length in {"real": 2, "clipart": 1}.items():
            own = [[key for name, key in part if name == task] for part in of_processes]
            assert [len(part) for part in own] == [length, length]
            assert own[0] + own[1] == [key for name, key in batch if name == task]


@pytest.mark.parametrize("num_parts", [1, 2, 3, 8])
@pytest.mark.parametrize(("most", "taken"), [(None, 5), (3, 3), (0, 0), (99, 5)])
def test_evaluation_batches_go_round(num_parts: int, most: int | None, taken: int) -> None:
    whole = FixedOrderBatchSampler(range(9), batch_size=2, keep_last=True)
    parts = [BatchesInTurns(whole, part, num_parts, most) for part in range(num_parts)]
    assert sum(map(len, parts)) == taken
    for part, of_process in enumerate(parts):
        assert list(of_process) == list(whole)[:taken][part::num_parts]
        assert len(of_process) == len(list(of_process))


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "num_parts"),
    [({"train": 8}, 4, 2), ({"train": 8}, 3, 1), ({"train": {"real": 9, "sketch": 2}}, 4, 2), ({"train": 6}, 8, 3)],
)
def test_batches_that_can_be_divided_pass(num_samples: dict, batch_size: int, num_parts: int) -> None:
    refuse_unequal_parts(num_samples, batch_size, num_parts)


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "num_parts", "said"),
    [
        ({"train": 8}, 3, 2, r"split 'train' has batches of 3 samples.*by 2 processes"),
        ({"train": 8, "train2": 3}, 4, 2, r"split 'train2' has batches of 3 samples"),
        ({"train": {"real": 9, "sketch": 3}}, 4, 2, r"split 'train' has batches of 3 samples"),
        ({"train": 8}, 8, 3, r"split 'train' has batches of 8 samples.*by 3 processes"),
    ],
)
def test_batches_that_cannot_be_divided_are_refused(
    num_samples: dict, batch_size: int, num_parts: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        refuse_unequal_parts(num_samples, batch_size, num_parts)
