"""The splits of an experiment as streams of batches: endless crops to train on, whole frames to evaluate."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from envs.data import BatchStream, Data
from envs.losses import Batch
from envs.task_sets import build_tasks
from tests.small_runs import CPU, TASKS, small_data, small_frames
from utils.errors import UserError

TEN_CLASSES = build_tasks("NYU_v2", ["seg"], [10])


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return small_data(tmp_path / "data", ["train", "train1"])


def test_training_batches_are_crops_that_never_end(data: Data) -> None:
    stream = data.training("train", batch_size=2)
    batches = [next(stream) for _ in range(5)]
    assert {tuple(batch["img"].shape) for batch in batches} == {(2, 3, 16, 24)}
    assert batches[0].keys() == {"img", "seg", "depth", "depth_valid", "name"}
    first_pass, second_pass = batches[:2], batches[2:4]
    assert len({name for batch in first_pass for name in batch["name"]}) == 4
    assert [batch["name"] for batch in first_pass] != [batch["name"] for batch in second_pass]


def test_a_stream_started_later_continues_the_one_from_the_start(data: Data) -> None:
    from_start = data.training("train", batch_size=2)
    for _ in range(3):
        next(from_start)
    later = data.training("train", batch_size=2, start=3)
    for _ in range(3):
        expected, found = next(from_start), next(later)
        assert found["name"] == expected["name"]
        torch.testing.assert_close(found["img"], expected["img"], rtol=0, atol=0)


def test_splits_have_batches_of_their_own(data: Data) -> None:
    assert data.batches_per_pass("train", batch_size=2) == 2
    assert data.batches_per_pass("train1", batch_size=1) == 4
    assert data.num_samples == {"train": 5, "train1": 4}
    with pytest.raises(KeyError, match="train2"):  # not asked for when the data was opened
        data.training("train2", batch_size=1)


@pytest.mark.parametrize(("whole", "sizes"), [(True, [2, 2, 1]), (False, [2, 2])])
def test_evaluation_takes_frames_in_order_as_often_as_asked(data: Data, whole: bool, sizes: list[int]) -> None:
    batches = data.evaluation("test", batch_size=2, whole=whole)
    assert len(batches) == len(sizes)
    for _ in range(2):
        seen = list(batches)
        assert [len(batch["img"]) for batch in seen] == sizes
        assert [name for batch in seen for name in batch["name"]] == list("abcde")[: sum(sizes)]
        assert seen[0]["img"].shape[2:] == (32, 48)


@pytest.mark.parametrize(("most", "names"), [(1, "ab"), (2, "abcd"), (11, "abcde")])
def test_evaluation_ends_after_so_many_batches(data: Data, most: int, names: str) -> None:
    batches = data.evaluation("test", batch_size=2, whole=True, most=most)
    assert [name for batch in batches for name in batch["name"]] == list(names)
    assert len(batches) == min(most, 3)


def test_the_first_samples_come_one_by_one(data: Data) -> None:
    assert [batch["name"] for batch in data.first_samples("test", 3)] == [["a"], ["b"], ["c"]]
    assert len(data.first_samples("test", 9)) == 5
    assert not list(data.first_samples("test", 0))


def test_data_tells_its_size_and_what_it_noticed_once(data: Data) -> None:
    assert data.example("val").shape == (1, 3, 32, 48)
    assert data.seed == 88
    assert len(set(data.notes)) == len(data.notes)
    assert sum("serve as train and as test" in note for note in data.notes) == 1


def test_a_class_that_the_head_lacks_stops_with_its_frame(tmp_path: Path) -> None:
    few_classes = small_data(tmp_path / "data", tasks=TEN_CLASSES)
    with pytest.raises(UserError, match=r"classes 0\.\.9"):
        next(few_classes.training("train", batch_size=2))
    with pytest.raises(UserError, match=r"^a: .* classes 0\.\.9"):
        next(iter(few_classes.evaluation("test", batch_size=2, whole=True)))


def test_a_stream_opens_its_loader_with_the_first_batch_and_moves_each_to_the_device() -> None:
    opened = []

    class Loader:
        def __iter__(self) -> Iterator[Batch]:
            opened.append(True)
            yield {"img": torch.ones(1, 3, 2, 2), "name": ["first"]}
            yield {"img": torch.ones(1, 3, 2, 2), "name": ["second"]}

    stream = BatchStream(Loader(), torch.device("meta"))
    assert not opened
    for name in ("first", "second"):
        batch = next(stream)
        assert (batch["img"].device.type, batch["name"]) == ("meta", [name])
    assert opened == [True]


def test_other_seeds_draw_other_crops_of_the_same_splits(tmp_path: Path) -> None:
    """As if the data had been opened with that seed; the first ones stay as they are."""
    first = small_data(tmp_path / "data")
    batches = [next(data.training("train", 2)) for data in (first, first.with_seed(45), first)]
    opened = Data(small_frames(tmp_path / "data"), TASKS, 45, CPU, ["train"], ["val"])
    expected = next(opened.training("train", 2))
    assert batches[1]["name"] == expected["name"]
    torch.testing.assert_close(batches[1]["img"], expected["img"], rtol=0, atol=0)
    torch.testing.assert_close(batches[0]["img"], batches[2]["img"], rtol=0, atol=0)
    assert not torch.equal(batches[0]["img"], batches[1]["img"])
