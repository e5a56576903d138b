"""What the splits of a part say together: which are empty, what stands in them twice, what they share."""

from collections import Counter
from collections.abc import Sequence

from dataloaders.check.findings import Findings, first_ones
from dataloaders.check.parts import Part, Parts
from dataloaders.splits import Splits

Identities = dict[str, list[str]]
"""Split -> the identity of each of its members."""

TRAINING = ("train", "train1", "train2")
EVALUATION = ("val", "test")
SPLITS = TRAINING + EVALUATION
"""What the three scripts open."""


def told_apart(splits: Splits) -> list[str]:
    """The splits whose samples are worth telling: not those that others, train and test first, contain."""
    told, seen = [], set()
    for split in ("train", "test", "val", "train1", "train2"):
        members = set(splits.members.get(split, ()))
        if members - seen:
            told.append(split)
            seen |= members
    return sorted(told, key=SPLITS.index)


def check_memberships(part: Part, needed: Sequence[str], findings: Findings) -> None:
    """Look at which samples form which split.

    Args:
        needed: the splits that must be there.
    """
    for split in needed:
        # The others are made of train and test: they are absent only where these are.
        if split in ("train", "test") or split in part.splits.members:
            findings.attempt(part.splits.members_of, split)
    if part.identity is None:
        return
    members = {split: own for split, own in part.splits.members.items() if split in SPLITS}
    identities = {split: [part.identity(member) for member in own] for split, own in members.items()}
    source = part.splits.source
    if part.repeats_are_faults:
        findings.add_faults([*repeated(identities, source), *shared(identities, source)])
    else:
        findings.add_notes(tolerated(identities, source))
    findings.add_notes(unusual(identities, source))


def repeated(identities: Identities, source: object) -> list[str]:
    """A sentence for every split that lists a sample twice."""
    sentences = []
    for split, names in identities.items():
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            sentences.append(
                f"split {split!r} of {source} lists {len(twice)} samples more than once ({first_ones(twice)}): "
                "list each once"
            )
    return sentences


def shared(identities: Identities, source: object) -> list[str]:
    """A sentence each if train1 and train2, or training and evaluation, have samples in common."""
    sides = [
        ("train1", "train2", set(identities.get("train1", ())), set(identities.get("train2", ()))),
        ("training", "test", union(identities, TRAINING), union(identities, EVALUATION)),
    ]
    return [
        f"{one} and {other} of {source} share {len(common)} samples ({first_ones(sorted(common))}): "
        "list each on one side"
        for one, other, names, others in sides
        if (common := names & others)
    ]


def tolerated(identities: Identities, source: object) -> list[str]:
    """A sentence that counts what `repeated` and `shared` would name; val is held out of train, or test itself."""
    train, test = union(identities, TRAINING), identities.get("test", [])
    twice = sum(count > 1 for count in Counter(identities.get("train", ())).values())
    common = sum(name in train for name in test)
    counts = [f"{twice} samples of train more than once"] if twice else []
    counts += [f"{common} of the {len(test)} samples of test in training as well"] if common else []
    return [f"{source} lists {' and '.join(counts)}"] if counts else []


def union(identities: Identities, splits: Sequence[str]) -> set[str]:
    """The samples of some splits together."""
    return {name for split in splits for name in identities.get(split, ())}


def unusual(identities: Identities, source: object) -> list[str]:
    """A sentence for what is allowed, but should be known."""
    sentences = []
    val = union(identities, ["val"])
    if val and val <= union(identities, ["test"]):
        sentences.append("val is test, or a part of it, as in the release: `best` is chosen on test data")
    strangers = union(identities, ["train1", "train2"]) - union(identities, ["train"])
    if strangers and "train" in identities:
        sentences.append(f"train1 and train2 of {source} have {len(strangers)} samples that train lacks")
    return sentences


def assumptions(parts: Parts) -> list[str]:
    """What the data root leaves open and the loaders assume; of several domains, the first one speaks for all."""
    first, *others = parts.values()
    return [f"{note}, and likewise of {len(others)} more" if others else note for note in first.splits.notes]
