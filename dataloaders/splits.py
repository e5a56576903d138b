"""Which samples form a split: what a data root lists, completed by what it leaves open.

A split is a list of members; what a member is (the files of a frame, a line of a list, a text) is the data set's
business. `complete_splits` makes train, train1, train2, test and val of whatever is listed.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from utils.errors import UserError

Member = TypeVar("Member")
Item = TypeVar("Item", bound=Hashable)

# Divisions of a split are the same in every run, whatever its seed: a resumed and a retraining run must
# agree with the first one on what is held out.
DIVISION_SEED = 0
TRAIN2_SHARE = 0.2
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Splits(Generic[Member]):
    """The members of every split of a data root.

    Attributes:
        source: the file or folder that lists them, or which part of it, for messages.
        members: split -> members.
        notes: a sentence for each thing that the data root leaves open and was assumed.
        identity: what members that say the same have in common; they stay together in every division.
    """

    source: Path | str
    members: dict[str, list[Member]]
    notes: tuple[str, ...] = ()
    # Not the member itself: one's own data set may have frames that are dicts, which no set takes.
    identity: Callable[[Member], Hashable] = str

    def members_of(self, split: str) -> list[Member]:
        """The members of `split`; UserError if it is unknown or empty."""
        if split not in self.members:
            raise UserError(
                f"{self.source} has no split {split!r}, only {', '.join(self.members) or 'an empty object'}: "
                f"add a list called {split!r}"
            )
        if not self.members[split]:
            raise UserError(
                f"split {split!r} of {self.source} is empty: it needs at least 1 sample, and a train split "
                "that is to be divided at least 2 different ones (3 if some are held out as val)"
            )
        return self.members[split]


def complete_splits(listed: Splits[Member], validation: str) -> Splits[Member]:
    """Complete what a data root lists: val follows `validation`, train1 and train2 are 80 % and 20 % of train.

    Args:
        validation: a name in `VALIDATION`.

    Raises: UserError if train1 is listed without train2, or the other way round.
    """
    return divide_train(VALIDATION[validation](listed))


def validate_on_test(splits: Splits[Member]) -> Splits[Member]:
    """Let "val" be the test split, or test_small, a part of it, where that is listed: the release's protocol."""
    members = {split: listed for split, listed in splits.members.items() if split != "val"}
    for split in ("test_small", "test"):
        if split in members:
            return replace(splits, members=members | {"val": members[split]})
    return replace(splits, members=members)


def validate_on_held_out(splits: Splits[Member]) -> Splits[Member]:
    """Let "val" be the one listed, unless some of it is in test or test_small, or else a tenth of train.

    Either way its members leave train, train1 and train2.
    """
    if "train" not in splits.members:
        return splits
    train = splits.members["train"]
    held_out = splits.members.get("val")
    tested = [*splits.members.get("test", ()), *splits.members.get("test_small", ())]
    if held_out is None or len(without(held_out, tested, splits.identity)) < len(held_out):
        held_out = divide(train, HELD_OUT_SHARE, splits.identity)[1]
    members = dict(splits.members)
    for split in members.keys() & {"train", "train1", "train2"}:
        members[split] = without(members[split], held_out, splits.identity)
    taken = len(train) - len(members["train"])
    note = f"{taken} of the {len(train)} train samples of {splits.source} are held out as val"
    return replace(splits, members=members | {"val": held_out}, notes=(*splits.notes, note) if taken else splits.notes)


VALIDATION: dict[str, Callable[[Splits], Splits]] = {
    "test": validate_on_test,
    "held_out": validate_on_held_out,
}


def divide_train(splits: Splits[Member]) -> Splits[Member]:
    """Complete the splits by train1 and train2, 80 % and 20 % of train, unless they are listed."""
    parts = splits.members.keys() & {"train1", "train2"}
    if len(parts) == 2 or "train" not in splits.members:
        return splits
    if parts:
        raise UserError(f"{splits.source} has split {parts.pop()!r} alone: list both train1 and train2, or neither")
    train1, train2 = divide(splits.members["train"], TRAIN2_SHARE, splits.identity)
    note = (
        f"{splits.source} lists no train1 and train2: its train split is divided into {len(train1)} and "
        f"{len(train2)} samples"
    )
    return replace(splits, members=splits.members | {"train1": train1, "train2": train2}, notes=(*splits.notes, note))


def divide(
    members: Sequence[Member], share: float, identity: Callable[[Member], Hashable] = str
) -> tuple[list[Member], list[Member]]:
    """Divide at random, always alike, into the rest and `share` of the members; of unique ones, 2 suffice.

    Members of the same identity as a chosen one go along with it, which makes the second part somewhat larger.
    """
    count = min(max(1, round(len(members) * share)), len(members) - 1)
    order = np.random.default_rng(DIVISION_SEED).permutation(len(members))
    identities = [identity(member) for member in members]
    chosen = {identities[index] for index in order[:count].tolist()}
    return (
        [member for member, own in zip(members, identities, strict=True) if own not in chosen],
        [member for member, own in zip(members, identities, strict=True) if own in chosen],
    )


def related(members: Mapping[str, Iterable[Item]], split: str) -> list[str]:
    """A split and those that share some of its members, be it by way of others; the split has one at least.

    Train is related to train1 and train2, which are parts of it, and val to train or test, whichever it is.
    """
    groups = {name: set(own) for name, own in members.items()}
    found = groups[split]
    while True:
        names = [name for name, group in groups.items() if not found.isdisjoint(group)]
        joined = found.union(*(groups[name] for name in names))
        if len(joined) == len(found):
            return names
        found = joined


def without(
    members: Sequence[Member], others: Sequence[Member], identity: Callable[[Member], Hashable] = str
) -> list[Member]:
    """The members whose identity none of the others has."""
    # A set: lists of 100 000 are too long to be searched.
    unwanted = set(map(identity, others))
    return [member for member in members if identity(member) not in unwanted]
