"""Written reviews in the format of FDU-MTL: is the reviewer content, in six domains.

A review mixes sentences without opinion with opinions in the words that all domains share or in the domain's
own. Some words praise in one domain and blame in another, and now and then a negation turns a word around.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataloaders.rendered.folders import (
    check_not_negative,
    domain_generator,
    is_finished,
    numbers_of_splits,
    record_arguments,
    sample_arguments,
)
from utils.files import write_text

Words = tuple[str, ...]


class Vocabulary(NamedTuple):
    """The words that are a domain's own."""

    nouns: Words
    praise: Words
    blame: Words


DOMAINS: dict[str, Vocabulary] = {
    "books": Vocabulary(
        ("book", "story", "chapter", "plot", "author", "ending", "novel", "heroine"),
        ("gripping", "moving", "vivid", "witty", "thoughtful", "unpredictable", "deep"),
        ("boring", "predictable", "shallow", "confusing", "wordy", "slow", "light"),
    ),
    "kitchen_housewares": Vocabulary(
        ("pan", "knife", "kettle", "lid", "blade", "handle", "toaster", "bowl"),
        ("sturdy", "sharp", "handy", "heavy", "stainless", "quick", "deep"),
        ("rusty", "dull", "leaking", "flimsy", "sticky", "scratched", "light"),
    ),
    "music": Vocabulary(
        ("album", "song", "singer", "chorus", "melody", "band", "voice", "recording"),
        ("catchy", "soulful", "haunting", "raw", "groovy", "moving", "loud"),
        ("noisy", "flat", "repetitive", "bland", "shrill", "tuneless", "quiet"),
    ),
    "electronics": Vocabulary(
        ("battery", "screen", "speaker", "cable", "remote", "charger", "player", "radio"),
        ("fast", "quiet", "bright", "durable", "compact", "flat", "crisp"),
        ("faulty", "dim", "hot", "slow", "loose", "loud", "heavy"),
    ),
    "apparel": Vocabulary(
        ("shirt", "jacket", "dress", "sweater", "collar", "fabric", "sleeve", "coat"),
        ("soft", "comfortable", "warm", "elegant", "light", "flattering", "loose"),
        ("itchy", "tight", "thin", "faded", "shrunken", "torn", "sticky"),
    ),
    "software": Vocabulary(
        ("program", "installer", "menu", "update", "interface", "manual", "version", "license"),
        ("fast", "stable", "intuitive", "predictable", "flexible", "compatible", "thin"),
        ("buggy", "bloated", "unpredictable", "slow", "cryptic", "outdated", "raw"),
    ),
}

SHARED_PRAISE = ("great", "excellent", "wonderful", "perfect", "lovely", "good", "fantastic", "superb")
SHARED_BLAME = ("terrible", "awful", "poor", "bad", "disappointing", "useless", "horrible", "dreadful")

PLAIN = (
    "the {noun} is {word} .",
    "i find the {noun} {word} .",
    "my {noun} turned out {word} .",
    "{word} {noun} , really !",
    "such {word} work , this {noun} .",
    "the {noun} seems {word} to me .",
)
NEGATED = (
    "the {noun} is not {word} .",
    "nobody would call the {noun} {word} .",
    "there is nothing {word} about the {noun} .",
    "the {noun} is n't {word} at all .",
)
WITHOUT_OPINION = (
    "i bought this {noun} last month .",
    "my sister owns the same {noun} .",
    "the {noun} came in a box .",
    "this is my second {noun} .",
    "i was looking for a new {noun} .",
    "we tried the {noun} on sunday .",
)

NEGATION_RATE = 0.2  # of the opinions say the opposite of their word
SHARED_RATE = 0.5  # of the opinions use a word of all domains


def write_fdu_mtl(folder: str | Path, split_sizes: dict[str, int], seed: int) -> Path:
    """Write a data set in the format of FDU-MTL, or leave alone the one that these arguments already made.

    Args:
        folder: new, empty, or from an earlier call with the same arguments.
        split_sizes: reviews of each domain, {"train": at least 2, "test": at least 1}.

    Returns:
        The folder. It holds `{domain}.task.train` and `{domain}.task.test` for each of `DOMAINS`, in lines
        "label TAB tokens": 1 content, 0 not, in turns; tokens are in lower case, between single spaces. Where
        the last domain's test file is, everything is.

    Raises: UserError for sizes out of range and for a folder that holds something else.
    """
    folder = Path(folder)
    splits = numbers_of_splits(split_sizes)
    check_not_negative(seed=seed)
    arguments = sample_arguments("fdu_mtl", split_sizes, seed=seed)
    files = {(domain, split): folder / f"{domain}.task.{split}" for domain in DOMAINS for split in ("train", "test")}
    *_, last_file = files.values()
    if not is_finished(folder, arguments, last_file):
        record_arguments(folder, arguments)
        for (domain, split), file in files.items():
            write_text(file, "".join(labelled_review(seed, domain, number) for number in splits[split]))
    return folder


def labelled_review(seed: int, domain: str, number: int) -> str:
    """The line of a domain's review of this number; even numbers are content."""
    rng = domain_generator(seed, number, list(DOMAINS).index(domain))
    content = number % 2 == 0
    return f"{int(content)}\t{review(rng, DOMAINS[domain], content)}\n"


def review(rng: np.random.Generator, vocabulary: Vocabulary, content: bool) -> str:
    """Three to seven opinions, at most one of them against the rest, among sentences without any."""
    opinions = [content] * int(rng.integers(3, 8))
    opinions[0] = content if rng.random() < 0.5 else not content
    sentences = [opinion(rng, vocabulary, favourable) for favourable in opinions]
    sentences += [
        pick(rng, WITHOUT_OPINION).format(noun=pick(rng, vocabulary.nouns)) for _ in range(rng.integers(1, 5))
    ]
    return " ".join(sentences[place] for place in rng.permutation(len(sentences)))


def opinion(rng: np.random.Generator, vocabulary: Vocabulary, favourable: bool) -> str:
    """A sentence in favour of something or against it."""
    negated = rng.random() < NEGATION_RATE
    if rng.random() < SHARED_RATE:
        praise, blame = SHARED_PRAISE, SHARED_BLAME
    else:
        praise, blame = vocabulary.praise, vocabulary.blame
    word = pick(rng, praise if favourable != negated else blame)
    return pick(rng, NEGATED if negated else PLAIN).format(noun=pick(rng, vocabulary.nouns), word=word)


def pick(rng: np.random.Generator, words: Words) -> str:
    """One of the words or sentences."""
    return words[rng.integers(len(words))]
