"""The words that a network of texts knows, and texts as numbers of words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from utils.errors import UserError

PADDING = 0
"""Stands behind the end of a text."""

UNKNOWN = 1
"""Stands for every word that the vocabulary lacks."""

NUM_MARKS = 2


@dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers: 0 is padding, 1 an unknown word, word i of `words` is i + 2."""

    words: tuple[str, ...]

    def __len__(self) -> int:
        """How many numbers there are, padding and unknown included."""
        return len(self.words) + NUM_MARKS

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Word -> number."""
        return {word: number for number, word in enumerate(self.words, start=NUM_MARKS)}

    def encode(self, tokens: Sequence[str], max_tokens: int) -> np.ndarray:
        """A text as int64 [max_tokens]: its first words, and padding behind its end if it is shorter."""
        numbers = [self.numbers.get(token, UNKNOWN) for token in tokens[:max_tokens]]
        return np.array(numbers + [PADDING] * (max_tokens - len(numbers)), dtype=np.int64)


# Every split of a run asks for the vocabulary of the same training texts: the last one is kept.
@lru_cache(maxsize=1)
def build_vocabulary(texts: tuple[str, ...], num_words: int) -> Vocabulary:
    """The vocabulary of the most frequent words of `texts`, words of one frequency in alphabetical order.

    Args:
        texts: words separated by blanks.
        num_words: size of the vocabulary, padding and unknown included; texts with fewer words make a smaller one.

    Raises: UserError if that leaves no room for a word.
    """
    if num_words <= NUM_MARKS:
        raise UserError(
            f"a vocabulary of {num_words} words is too small: padding and unknown words need {NUM_MARKS}, "
            f"so give at least {NUM_MARKS + 1}"
        )
    frequencies = Counter(word for text in texts for word in text.split())
    ranked = sorted(frequencies, key=lambda word: (-frequencies[word], word))
    return Vocabulary(tuple(ranked[: num_words - NUM_MARKS]))
