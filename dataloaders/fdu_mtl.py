"""FDU-MTL: reviews of many domains, each to be told positive from negative (Liu et al., ACL 2017).

A data root holds, for each domain, `{domain}.task.train` and `{domain}.task.test`. A line of these is a review,
"label TAB words", its label 0..C-1, its words separated by blanks. The files mix encodings: a line that is not
UTF-8 is Windows-1252.

Every domain is a task with texts of its own, so a split is {domain: `Reviews`}, and all share one vocabulary.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from dataloaders.frames import refuse_no_folder
from dataloaders.keys import Key
from dataloaders.lists import read_lines
from dataloaders.options import DataOptions
from dataloaders.splits import Splits, complete_splits
from dataloaders.vocabulary import Vocabulary, build_vocabulary
from utils.errors import UserError
from utils.problems import shorten

LISTED = ("train", "test")
FORM_OF_A_LINE = "label TAB words"

# Windows-1252 leaves five bytes without a meaning, Latin-1 none: so no line is lost.
ENCODINGS = ("utf-8", "cp1252", "latin-1")


class Review(NamedTuple):
    """A line of a file: its number, counted from 1, its class and its words, separated by blanks."""

    line: int
    label: int
    text: str


class Reviews:
    """One split of one domain: key (pass number, index) -> sample, the same in every pass.

    - "text"    int64 [max_tokens], numbers of words, 0 behind the end; all 0 for a review without words
    - domain    int64, the class, 0..C-1; the key is the domain's name
    - "name"    str, domain and line, as in "books 17"

    Attributes:
        class_names: class -> name.
        notes: sentences the user should read, if the data root leaves something to be assumed.
    """

    class_names: ClassVar = {0: "negative", 1: "positive"}

    def __init__(
        self,
        domain: str,
        reviews: Sequence[Review],
        vocabulary: Vocabulary,
        max_tokens: int,
        notes: tuple[str, ...] = (),
    ):
        self.domain = domain
        self.reviews = reviews
        self.vocabulary = vocabulary
        self.max_tokens = max_tokens
        self.notes = notes

    def __len__(self) -> int:
        return len(self.reviews)

    def source_of(self, index: int) -> str:
        """Domain and line of a review, for messages."""
        return f"{self.domain} {self.reviews[index].line}"

    def __getitem__(self, key: Key) -> dict[str, np.ndarray | np.int64 | str]:
        review = self.reviews[key[1]]
        return {
            "text": self.vocabulary.encode(review.text.split(), self.max_tokens),
            self.domain: np.int64(review.label),
            "name": self.source_of(key[1]),
        }


def open_fdu_mtl(options: DataOptions, split: str, training: bool) -> dict[str, Reviews]:
    """A split of every domain that `options.targets` names; texts are the same in training and evaluation.

    Raises: UserError for whatever is wrong with the data root and these domains.
    """
    refuse_no_folder(options.dataroot, "DOMAIN.task.train and DOMAIN.task.test")
    splits = {
        domain: resolve_splits(options.dataroot, domain, num_classes, options.validation)
        for domain, num_classes in options.targets.items()
    }
    if options.vocabulary is None:
        vocabulary = train_vocabulary(splits.values(), options.num_words)
    else:
        vocabulary = Vocabulary(options.vocabulary)
    return {
        domain: Reviews(domain, own.members_of(split), vocabulary, options.max_tokens, own.notes)
        for domain, own in splits.items()
    }


def train_vocabulary(splits: Iterable[Splits[Review]], num_words: int) -> Vocabulary:
    """The most frequent words of the train split of all domains together."""
    texts = tuple(review.text for own in splits for review in own.members_of("train"))
    return build_vocabulary(texts, num_words)


def resolve_splits(dataroot: Path, domain: str, num_classes: int, validation: str = "test") -> Splits[Review]:
    """The splits train, train1, train2, test and val of a domain, completed as `dataloaders.splits` says.

    Reviews of the same text stay together: it is in one of train1, train2 and a held out val.

    Raises: UserError if the domain has no file, or a line is not of its form.
    """
    paths = {split: dataroot / f"{domain}.task.{split}" for split in LISTED}
    listed = {split: read_reviews(path, num_classes) for split, path in paths.items() if os.path.isfile(path)}
    if not listed:
        known = sorted({path.name.rpartition(".task.")[0] for path in dataroot.glob("*.task.*")})
        raise UserError(
            f"{dataroot} has no {paths['train'].name}: give {domain!r} a file, or choose among the domains there, "
            f"{', '.join(known) or 'none'}"
        )
    return complete_splits(Splits(dataroot / f"{domain}.task.*", listed, identity=text_of), validation)


def text_of(review: Review) -> str:
    """What makes two reviews the same, whichever lines they stand in."""
    return review.text


def read_reviews(path: Path, num_classes: int) -> list[Review]:
    """Every line of a file as a review.

    Raises: UserError if the file cannot be read or is empty, or for the first line without a TAB or with a label
    that is not an integer in 0..num_classes-1.
    """
    lines = read_lines(path, FORM_OF_A_LINE)
    return [_parse(decode(line), number, path, num_classes) for number, line in enumerate(lines, start=1)]


def decode(line: bytes) -> str:
    """A line in the first of `ENCODINGS` that fits."""
    for encoding in ENCODINGS[:-1]:
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    return line.decode(ENCODINGS[-1])


def _parse(line: str, number: int, path: Path, num_classes: int) -> Review:
    label, tab, text = line.partition("\t")
    if not tab:
        raise UserError(f"line {number} of {path} has no TAB: it must be {FORM_OF_A_LINE!r}")
    if label not in map(str, range(num_classes)):
        raise UserError(
            f"line {number} of {path} has the label '{shorten(label)}', but labels must be integers in "
            f"0..{num_classes - 1}: correct it, or the domain's entry in tasks_num_class"
        )
    return Review(number, int(label), text)
