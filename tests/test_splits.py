"""Splits: how what a data root lists is completed."""

from dataclasses import replace
from pathlib import Path

import pytest

from dataloaders.splits import Splits, complete_splits, divide, related
from utils.errors import UserError

TRAIN = list(range(40))


def completed(validation: str, **listed: list) -> dict[str, list]:
    return complete_splits(Splits(Path("list.json"), listed), validation).members


def test_test_split_validates_and_its_small_part_where_there_is_one() -> None:
    assert completed("test", train=TRAIN, val=[1], test=[50, 51])["val"] == [50, 51]
    members = completed("test", train=TRAIN, val=[1], test=[50, 51], test_small=[51])
    assert members["val"] == [51]
    assert members["test"] == [50, 51]
    assert "val" not in completed("test", train=TRAIN, val=[1])


def test_held_out_samples_are_never_those_of_the_test() -> None:
    assert completed("held_out", train=TRAIN, val=[60, 61], test=[50, 51])["val"] == [60, 61]
    for tested in ([50, 51], [51]):
        members = completed("held_out", train=TRAIN, val=tested, test=[50, 51], test_small=[51])
        assert len(members["val"]) == 4
        assert sorted(members["val"] + members["train"]) == TRAIN
        assert sorted(members["train1"] + members["train2"]) == members["train"]


@pytest.mark.parametrize("listed", [[51, 50], [60, 50], [50], [60, 61, 70]])
def test_a_listed_val_that_holds_any_test_sample_is_replaced(listed: list[int]) -> None:
    members = completed("held_out", train=TRAIN, val=listed, test=[50, 51], test_small=[70])
    assert members["val"] == divide(TRAIN, 0.1)[1]
    assert not set(members["val"]) & set(members["train"])


def test_listed_parts_lose_what_is_held_out() -> None:
    members = completed("held_out", train=TRAIN, train1=TRAIN[:30], train2=TRAIN[30:], val=[3, 35], test=[50])
    assert members["train1"] == [sample for sample in range(30) if sample != 3]
    assert members["train2"] == [sample for sample in range(30, 40) if sample != 35]


def test_a_division_is_random_but_always_the_same() -> None:
    most, rest = divide(TRAIN, 0.2)
    assert len(rest) == 8
    assert sorted(most + rest) == TRAIN
    assert rest == sorted(rest) != TRAIN[-8:]
    assert divide(TRAIN, 0.2) == (most, rest)
    assert [len(part) for part in divide(["a", "b"], 0.01)] == [1, 1]


def test_divisions_are_those_of_every_version() -> None:
    """Runs of one version must be resumed and retrained by the next: these numbers may not change."""
    assert divide(range(10), 0.2) == ([0, 1, 2, 3, 5, 7, 8, 9], [4, 6])
    assert divide(TRAIN, 0.2)[1] == [2, 3, 4, 11, 23, 24, 27, 34]
    assert divide(TRAIN, 0.1)[1] == [4, 11, 24, 27]


def test_members_of_one_identity_stay_together() -> None:
    words = [f"word {number % 20}" for number in range(40)]
    assert divide(range(40), 0.1, identity=words.__getitem__)[1] == [4, 7, 11, 24, 27, 31]  # 4, 11, 24, 27 are drawn
    for validation, parts in (("test", ("train1", "train2")), ("held_out", ("train1", "train2", "val"))):
        listed = Splits("list", {"train": TRAIN, "test": [50]}, identity=lambda number: number % 20)
        members = complete_splits(listed, validation).members
        assert sorted(number for part in parts for number in members[part]) == TRAIN
        for part in parts:
            assert sorted({number % 20 for number in members[part]}) == members[part][: len(members[part]) // 2]


def test_listed_val_leaves_train_by_identity() -> None:
    listed = Splits("list", {"train": TRAIN, "val": [103], "test": [54]}, identity=lambda number: number % 50)
    members = complete_splits(listed, "held_out").members
    assert members["val"] == [103]
    assert members["train"] == [number for number in TRAIN if number != 3]
    shared = replace(listed, members={**listed.members, "test": [53]})
    assert members["val"] != complete_splits(shared, "held_out").members["val"] == divide(TRAIN, 0.1)[1]


def test_unknown_and_empty_splits_are_refused_by_name() -> None:
    splits = Splits(Path("list.json"), {"train": TRAIN, "test": []})
    with pytest.raises(UserError, match=r"list\.json has no split 'val', only train, test"):
        splits.members_of("val")
    with pytest.raises(UserError, match=r"split 'test' of list\.json is empty"):
        splits.members_of("test")
    with pytest.raises(UserError, match="'train2' alone"):
        completed("test", train=TRAIN, train2=[1])


def test_splits_are_related_by_what_they_share_even_by_way_of_others() -> None:
    members = {"train": [3, 1, 2], "train1": [1, 2], "train2": [3, 9], "test": [5, 4, 5], "small": [4], "val": [9, 8]}
    assert related(members, "train1") == related(members, "val") == ["train", "train1", "train2", "val"]
    assert related(members, "small") == ["test", "small"]
