"""The vocabulary: which words it takes, which numbers they get, what becomes of a text."""

import numpy as np
import pytest

from dataloaders.vocabulary import Vocabulary, build_vocabulary
from utils.errors import UserError

TEXTS = ("the plot the cast", "the end a bore", "a plot zeal")


def test_words_are_ranked_by_frequency_and_then_by_alphabet() -> None:
    vocabulary = build_vocabulary(TEXTS, 100)
    assert vocabulary.words == ("the", "a", "plot", "bore", "cast", "end", "zeal")
    assert len(vocabulary) == 9  # with padding and unknown


def test_size_counts_padding_and_unknown() -> None:
    vocabulary = build_vocabulary(TEXTS, 5)
    assert vocabulary.words == ("the", "a", "plot")
    assert len(vocabulary) == 5


@pytest.mark.parametrize("num_words", [2, 1, 0])
def test_a_size_without_room_for_a_word_is_refused(num_words: int) -> None:
    with pytest.raises(UserError, match=rf"vocabulary of {num_words} words .* at least 3"):
        build_vocabulary(TEXTS, num_words)


def test_order_of_the_texts_changes_nothing_but_the_words_do() -> None:
    assert build_vocabulary(TEXTS[::-1], 100) == build_vocabulary(TEXTS, 100)
    assert build_vocabulary((*TEXTS, "zeal zeal"), 100).words[:2] == ("the", "zeal")


def test_the_same_texts_are_counted_once() -> None:
    again = tuple("".join(text) for text in TEXTS)  # alike, but not the same objects
    assert build_vocabulary(again, 100) is build_vocabulary(TEXTS, 100)


def test_text_becomes_numbers_cut_or_filled_to_one_length() -> None:
    vocabulary = Vocabulary(("the", "plot"))
    encoded = vocabulary.encode(["plot", "of", "the", "plot"], 6)
    assert encoded.dtype == np.int64
    assert encoded.tolist() == [3, 1, 2, 3, 0, 0]
    assert vocabulary.encode(["plot", "of", "the", "plot"], 2).tolist() == [3, 1]
    assert vocabulary.encode([], 3).tolist() == [0, 0, 0]
