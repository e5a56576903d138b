"""Loading: which keys form which batch, and what a training loop receives and does not feel."""

import errno
import itertools
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dataloaders import loading
from dataloaders.loading import (
    FixedOrderBatchSampler,
    Key,
    PassBatchSampler,
    SampleError,
    build_loader,
    evaluation_sampler,
    keyed_generator,
    training_sampler,
)
from dataloaders.nyu_v2 import NYUv2
from tests.test_nyu_v2 import make_root
from utils.errors import UserError


class KeyDataset(Dataset):
    """Samples that hold their key and the number of threads of the process that made them."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, key: Key) -> dict:
        threads = np.array([cv2.getNumThreads(), torch.get_num_threads()])
        return {"img": np.array(key), "threads": threads, "name": f"{key[0]}:{key[1]}"}


class BrokenDataset(KeyDataset):
    """Sample 3 cannot be read."""

    def __getitem__(self, key: Key) -> dict:
        if key[1] == 3:
            raise UserError("frame/3.png cannot be read: replace the file")
        return super().__getitem__(key)


class FailingDataset(KeyDataset):
    """Sample 3 fails, with an error of one's choice."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, key: Key) -> dict:
        if key[1] == 3:
            raise self.error
        return super().__getitem__(key)


class FailingFrames(FailingDataset):
    """The same, of a data set that knows where its samples come from."""

    split = "train1"

    def source_of(self, index: int) -> str:
        return f"rooms/{index}.png"


class TaskDataset(KeyDataset):
    """Samples of one task with inputs of its own, which hold their key; `broken` cannot be read."""

    def __init__(self, task: str, length: int, input_name: str = "img", broken: int | None = None) -> None:
        self.task = task
        self.length = length
        self.input_name = input_name
        self.broken = broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Key) -> dict:
        if key[1] == self.broken:
            raise UserError(f"{self.task} {key[1]} cannot be read: replace the file")
        return {self.input_name: np.array(key), self.task: np.int64(10 * key[1]), "name": f"{self.task} {key[1]}"}


def two_tasks(**arguments: str | int) -> dict[str, TaskDataset]:
    return {"photo": TaskDataset("photo", 5, **arguments), "sketch": TaskDataset("sketch", 3)}


# Samplers


def test_each_pass_shows_every_sample_at_most_once_in_an_order_of_its_own() -> None:
    sampler = PassBatchSampler(10, 3, seed=1, split="train")
    assert sampler.batches_per_pass == 3
    batches = list(itertools.islice(sampler, 9))
    assert {len(batch) for batch in batches} == {3}
    passes = [list(itertools.chain(*batches[first : first + 3])) for first in (0, 3, 6)]
    for number, keys in enumerate(passes):
        assert {pass_number for pass_number, _ in keys} == {number}
        assert len({index for _, index in keys}) == 9
    orders = [[index for _, index in keys] for keys in passes]
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_order_is_keyed_by_seed_and_split() -> None:
    def first_pass(seed: int, split: str) -> list[list[Key]]:
        return list(itertools.islice(PassBatchSampler(50, 5, seed, split), 10))

    assert first_pass(1, "train") == first_pass(1, "train")
    assert first_pass(1, "train") != first_pass(2, "train")
    assert first_pass(1, "train") != first_pass(1, "train1")


@pytest.mark.parametrize("start", [0, 1, 3, 4, 7])
def test_resumed_stream_continues_where_the_first_one_was_left(start: int) -> None:
    whole = list(itertools.islice(PassBatchSampler(10, 3, 5, "train"), 12))
    resumed = list(itertools.islice(PassBatchSampler(10, 3, 5, "train", start=start), 12 - start))
    assert resumed == whole[start:]


def test_short_batch_is_kept_only_as_the_only_one() -> None:
    few = PassBatchSampler(2, 16, 5, "train")
    assert few.batches_per_pass == 1
    assert [len(batch) for batch in itertools.islice(few, 3)] == [2, 2, 2]

    lengths = {
        (samples, keep_last): [len(batch) for batch in FixedOrderBatchSampler(range(samples), 4, keep_last)]
        for samples in (3, 4, 10)
        for keep_last in (True, False)
    }
    assert lengths == {
        (3, True): [3],
        (3, False): [3],
        (4, True): [4],
        (4, False): [4],
        (10, True): [4, 4, 2],
        (10, False): [4, 4],
    }
    for (samples, keep_last), batches in lengths.items():
        assert len(FixedOrderBatchSampler(range(samples), 4, keep_last)) == len(batches)


def test_evaluation_follows_the_order_of_the_files() -> None:
    batches = list(FixedOrderBatchSampler(range(5), 2, keep_last=True))
    assert batches == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]


def test_orders_and_samples_draw_from_different_streams() -> None:
    first_pass = itertools.islice(PassBatchSampler(1000, 1, 7, "train"), 1000)
    order = [index for batch in first_pass for _, index in batch]
    assert order != keyed_generator(7, "train", 0, 0).permutation(1000).tolist()


def test_draws_are_those_of_every_process_and_version() -> None:
    """Runs of one version must be resumed by the next: these numbers may not change."""
    assert keyed_generator(88, "order of train", 0).integers(1000, size=5).tolist() == [603, 40, 83, 635, 164]
    (keys,) = itertools.islice(PassBatchSampler(10, 10, 88, "train"), 1)
    assert keys == [(0, index) for index in (2, 4, 1, 6, 5, 8, 0, 9, 7, 3)]


def test_a_data_set_that_all_tasks_share_has_the_plain_samplers_batches() -> None:
    training = training_sampler(KeyDataset(), 2, seed=3, split="train", start=1)
    expected = PassBatchSampler(5, 2, 3, "train", start=1)
    assert training.batches_per_pass == expected.batches_per_pass == 2
    assert list(itertools.islice(training, 5)) == list(itertools.islice(expected, 5))
    for keep_last in (True, False):
        assert list(evaluation_sampler(KeyDataset(), 2, keep_last)) == list(
            FixedOrderBatchSampler(range(5), 2, keep_last)
        )


def test_every_task_goes_through_its_own_passes() -> None:
    sampler = training_sampler(two_tasks(), 2, seed=3, split="train")
    assert sampler.batches_per_pass == 2  # the larger task's
    batches = list(itertools.islice(sampler, 6))
    for task, length, batches_per_pass in (("photo", 5, 2), ("sketch", 3, 1)):
        own = PassBatchSampler(length, 2, 3, f"train of {task}")
        assert own.batches_per_pass == batches_per_pass
        found = [[key for of_task, key in batch if of_task == task] for batch in batches]
        assert found == list(itertools.islice(own, 6))


def test_tasks_with_inputs_of_their_own_are_evaluated_in_a_mixed_order_that_never_changes() -> None:
    """Lists of classes are sorted by class: in their order, the first batches would know a few classes only."""
    tasks = {task: TaskDataset(task, 100) for task in ("photo", "sketch")}
    orders = [
        {task: [index for of_task, (_, index) in itertools.chain(*batches) if of_task == task] for task in tasks}
        for batches in (list(evaluation_sampler(tasks, size, keep_last=True)) for size in (10, 7))
    ]
    assert orders[0] == orders[1]
    assert sorted(orders[0]["photo"]) == list(range(100))
    assert orders[0]["photo"] != orders[0]["sketch"]
    quarters = {index // 25 for index in orders[0]["photo"][:20]}
    assert quarters == {0, 1, 2, 3}


def test_tasks_of_one_size_have_orders_of_their_own() -> None:
    tasks = {task: TaskDataset(task, 20) for task in ("photo", "sketch")}
    (batch,) = itertools.islice(training_sampler(tasks, 20, seed=3, split="train"), 1)
    orders = {task: [index for of_task, (_, index) in batch if of_task == task] for task in tasks}
    assert sorted(orders["photo"]) == sorted(orders["sketch"])
    assert orders["photo"] != orders["sketch"]


@pytest.mark.parametrize("start", [1, 2, 5])
def test_resumed_streams_of_tasks_continue_where_they_were_left(start: int) -> None:
    whole = list(itertools.islice(training_sampler(two_tasks(), 2, 3, "train"), 8))
    resumed = list(itertools.islice(training_sampler(two_tasks(), 2, 3, "train", start), 8 - start))
    assert resumed == whole[start:]


@pytest.mark.parametrize(("keep_last", "photo", "sketch"), [(True, [2, 2, 1], [2, 1, 0]), (False, [2, 2], [2, 0])])
def test_evaluation_of_tasks_lasts_as_long_as_the_longest(keep_last: bool, photo: list[int], sketch: list[int]) -> None:
    sampler = evaluation_sampler(two_tasks(), 2, keep_last)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    for task, sizes in (("photo", photo), ("sketch", sketch)):
        assert [sum(of_task == task for of_task, _ in batch) for batch in batches] == sizes
        indices = [index for batch in batches for of_task, (_, index) in batch if of_task == task]
        assert len(indices) == len(set(indices)) == sum(sizes)


# Loader


@pytest.mark.parametrize("num_workers", [0, 2])
def test_endless_loader_yields_the_samplers_batches_pass_after_pass(num_workers: int) -> None:
    sampler = PassBatchSampler(5, 2, seed=3, split="train")
    batches = iter(build_loader(KeyDataset(), sampler, num_workers, pin_memory=False))
    for keys in itertools.islice(sampler, 15):
        batch = next(batches)
        assert [tuple(key) for key in batch["img"].tolist()] == keys
        assert batch["name"] == [f"{pass_number}:{index}" for pass_number, index in keys]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loader_can_be_left_early_and_started_again(num_workers: int) -> None:
    loader = build_loader(KeyDataset(), FixedOrderBatchSampler(range(5), 1, keep_last=True), num_workers, False)
    assert next(iter(loader))["name"] == ["0:0"]
    assert [batch["name"] for batch in loader] == [[f"0:{index}"] for index in range(5)]
    assert len(loader) == 5


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_leaves_the_global_generators_alone(num_workers: int) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for _ in build_loader(KeyDataset(), FixedOrderBatchSampler(range(5), 2, keep_last=True), num_workers, False):
        pass
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_worker_computes_in_one_thread() -> None:
    sampler = FixedOrderBatchSampler(range(5), 5, keep_last=True)
    batch = next(iter(build_loader(KeyDataset(), sampler, num_workers=1, pin_memory=False)))
    assert batch["threads"].unique().tolist() == [1]


def test_opencv_leaves_the_cores_to_pytorch_where_there_is_no_worker() -> None:
    cv2.setNumThreads(2)
    sampler = FixedOrderBatchSampler(range(5), 5, keep_last=True)
    batch = next(iter(build_loader(KeyDataset(), sampler, num_workers=0, pin_memory=False)))
    assert batch["threads"][:, 0].unique().tolist() == [1]


def batches_and_error(loader: DataLoader) -> tuple[list[dict], str]:
    """The batches that come before the error, and what it says."""
    batches = []
    # Not pytest.raises: it would keep the loader alive in a reference cycle.
    try:
        for batch in loader:
            batches.append(batch)
    except UserError as error:
        return batches, str(error)
    raise AssertionError("no error")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_error_of_a_worker_reaches_the_user_as_its_own_sentence(num_workers: int) -> None:
    loader = build_loader(BrokenDataset(), FixedOrderBatchSampler(range(5), 2, keep_last=True), num_workers, False)
    batches, error = batches_and_error(loader)
    assert [batch["name"] for batch in batches] == [["0:0", "0:1"]]
    assert error == "frame/3.png cannot be read: replace the file"


def refuse_sample_3(batch: dict) -> None:
    """A check of batches, which tells the process that it ran in."""
    if "0:3" in batch["name"]:
        raise UserError(f"0:3 is wrong, says process {os.getpid()}")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_checked_by_the_process_that_makes_them(num_workers: int) -> None:
    sampler = FixedOrderBatchSampler(range(5), 2, keep_last=True)
    batches, error = batches_and_error(build_loader(KeyDataset(), sampler, num_workers, False, refuse_sample_3))
    assert [batch["name"] for batch in batches] == [["0:0", "0:1"]]
    assert error.startswith("0:3 is wrong, says process ")
    assert error.endswith(f" {os.getpid()}") == (num_workers == 0)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("kind", "sample"),
    [
        (FailingFrames, "sample 3 of split 'train1' (rooms/3.png) could not be made, in pass 2"),
        (FailingDataset, "sample 3 could not be made, in pass 2"),
    ],
)
def test_an_unforeseen_error_keeps_its_traceback_and_names_the_sample(
    num_workers: int, kind: type[FailingDataset], sample: str
) -> None:
    loader = build_loader(kind(KeyError("seg")), PassBatchSampler(5, 5, 1, "train", start=2), num_workers, False)
    trace = ""
    try:
        next(iter(loader))
    except SampleError as error:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        # It holds PyTorch's own frames, and these the error: a cycle that would keep the workers.
        error.__traceback__ = None
    assert f"SampleError: {sample}\n" in trace
    assert "KeyError: 'seg'" in trace
    assert "raise self.error" in trace


def error_of_the_machine(number: int) -> UserError:
    """As a data set reports a file that could not be opened."""
    error = UserError("rooms/3.png cannot be read: replace the file")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), r"^memory is exhausted \(MemoryError\): "),
        (error_of_the_machine(errno.EMFILE), r"^too many files are open "),
        (error_of_the_machine(errno.ENOENT), r"^rooms/3\.png cannot be read: replace the file$"),
    ],
)
def test_the_machines_faults_are_not_blamed_on_the_sample(error: Exception, sentence: str) -> None:
    loader = build_loader(FailingDataset(error), FixedOrderBatchSampler(range(5), 5, keep_last=True), 0, False)
    with pytest.raises(UserError, match=sentence):
        next(iter(loader))


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_broken_connection_to_a_worker_is_told_in_a_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(loader: DataLoader) -> Iterator[dict]:
        yield {"name": ["0:0"]}
        raise error

    monkeypatch.setattr(DataLoader, "__iter__", broken)
    monkeypatch.setattr(loading, "SECONDS_TO_LEARN_OF_AN_END", 0)
    batches = iter(build_loader(KeyDataset(), FixedOrderBatchSampler(range(5), 1, keep_last=True), 0, False))
    assert next(batches) == {"name": ["0:0"]}
    with pytest.raises(UserError, match=r"^a data loading process ended \((EOF|ConnectionReset)Error"):
        next(batches)


def test_frames_of_several_sizes_cannot_share_a_batch(tmp_path: Path) -> None:
    make_root(tmp_path, ["a"])
    make_root(tmp_path, ["b"], height=10)
    dataset = NYUv2(tmp_path, "test", ("seg",))
    assert len(list(build_loader(dataset, FixedOrderBatchSampler(range(2), 1, True), 0, False))) == 2
    with pytest.raises(UserError, match=r"a \(12x16\) and b \(10x16\) differ in size"):
        next(iter(build_loader(dataset, FixedOrderBatchSampler(range(2), 2, True), 0, False)))


def test_number_of_workers_changes_no_value(tmp_path: Path) -> None:
    targets = ("seg", "normal", "depth")
    make_root(tmp_path, ["a", "b", "c"], height=40, width=40)

    def three_batches(num_workers: int) -> list[dict]:
        dataset = NYUv2(tmp_path, "train", targets, (32, 24), "geometric", seed=9, normals="decoded")
        sampler = PassBatchSampler(len(dataset), 2, 9, "train")
        return list(itertools.islice(build_loader(dataset, sampler, num_workers, False), 3))

    for here, there in zip(three_batches(0), three_batches(2), strict=True):
        shapes = {key: (value.dtype, tuple(value.shape)) for key, value in here.items() if key != "name"}
        assert shapes == {
            "img": (torch.float32, (2, 3, 32, 24)),
            "seg": (torch.int64, (2, 32, 24)),
            "normal": (torch.float32, (2, 3, 32, 24)),
            "normal_valid": (torch.bool, (2, 1, 32, 24)),
            "depth": (torch.float32, (2, 1, 32, 24)),
            "depth_valid": (torch.bool, (2, 1, 32, 24)),
        }
        assert here["name"] == there["name"]
        for key in shapes:
            assert torch.equal(here[key], there[key])


# Loader of tasks with inputs of their own


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batch_holds_inputs_and_names_per_task_and_each_target_under_its_task(num_workers: int) -> None:
    tasks = two_tasks()
    sampler = training_sampler(tasks, 2, seed=3, split="train")
    loader = build_loader(tasks, sampler, num_workers, False)
    for keys, batch in zip(itertools.islice(sampler, 6), itertools.islice(loader, 6), strict=True):
        assert batch.keys() == {"img", "name", "photo", "sketch"}
        for task in tasks:
            own = [key for of_task, key in keys if of_task == task]
            assert [tuple(key) for key in batch["img"][task].tolist()] == own
            assert batch[task].dtype == torch.int64
            assert batch[task].tolist() == [10 * index for _, index in own]
            assert batch["name"][task] == [f"{task} {index}" for _, index in own]


def test_a_task_that_has_run_out_is_absent() -> None:
    tasks = two_tasks()
    batches = list(build_loader(tasks, evaluation_sampler(tasks, 2, keep_last=True), 0, False))
    assert [batch.keys() - {"img", "name"} for batch in batches] == [
        {"photo", "sketch"},
        {"photo", "sketch"},
        {"photo"},
    ]
    last = batches[-1]
    assert last["img"].keys() == last["name"].keys() == {"photo"}
    names = [name for batch in batches for name in batch["name"]["photo"]]
    assert sorted(names) == [f"photo {index}" for index in range(5)]


def test_tasks_may_have_texts_for_inputs() -> None:
    tasks = {task: TaskDataset(task, 2, input_name="text") for task in ("books", "music")}
    (batch,) = build_loader(tasks, evaluation_sampler(tasks, 2, keep_last=True), 0, False)
    assert batch.keys() == {"text", "name", "books", "music"}
    assert {task: tuple(text.shape) for task, text in batch["text"].items()} == {"books": (2, 2), "music": (2, 2)}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_error_of_one_task_reaches_the_user_as_its_own_sentence(num_workers: int) -> None:
    tasks = two_tasks(broken=3)
    loader = build_loader(tasks, evaluation_sampler(tasks, 2, keep_last=True), num_workers, False)
    batches, error = batches_and_error(loader)
    names = [name for batch in batches for name in batch["name"]["photo"]]
    assert len(names) in (0, 2, 4), "whole batches come before it"
    assert "photo 3" not in names
    assert error == "photo 3 cannot be read: replace the file"
