"""FDU-MTL: how lines become reviews, which words are known, which reviews form a split, what bad files say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataloaders.fdu_mtl import Reviews, open_fdu_mtl, resolve_splits
from dataloaders.options import DataOptions
from utils.config import DataloadSection
from utils.errors import UserError


def write_domain(root: Path, domain: str, train: Sequence[bytes], test: Sequence[bytes]) -> None:
    """Write the two files of a domain, a line each."""
    for split, lines in (("train", train), ("test", test)):
        (root / f"{domain}.task.{split}").write_bytes(b"".join(line + b"\n" for line in lines))


def numbered(word: str, count: int) -> list[bytes]:
    """Reviews "word word0", "word word1", ... of classes 0 and 1 in turn."""
    return [f"{number % 2}\t{word} {word}{number}".encode() for number in range(count)]


def options_of(root: Path, targets: Mapping[str, int]) -> DataOptions:
    settings = DataloadSection(dataset="FDU_MTL", dataroot=str(root), max_tokens=4)
    return DataOptions.of(settings, targets, seed=0)


@pytest.fixture
def options(tmp_path: Path) -> DataOptions:
    write_domain(tmp_path, "books", numbered("page", 10), numbered("spine", 3))
    write_domain(tmp_path, "music", numbered("tune", 20), numbered("beat", 5))
    return options_of(tmp_path, {"books": 2, "music": 2})


def texts_of(domain: Reviews) -> list[str]:
    return [review.text for review in domain.reviews]


def one_domain(root: Path, lines: Sequence[bytes], targets: Mapping[str, int] | None = None) -> Reviews:
    write_domain(root, "books", lines, [b"0\tfine"])
    return open_fdu_mtl(options_of(root, targets or {"books": 2}), "train", True)["books"]


# Reviews


def test_sample_holds_numbers_of_words_class_and_line(options: DataOptions) -> None:
    domains = open_fdu_mtl(options, "train", True)
    assert list(domains) == ["books", "music"]
    sample = domains["music"][0, 3]
    assert sample.keys() == {"text", "music", "name"}
    words = domains["music"].vocabulary.words
    assert words[:3] == ("tune", "page", "page0")  # 20, 10 and 1 times
    assert sample["text"].tolist() == [2, words.index("tune3") + 2, 0, 0]
    assert sample["text"].dtype == sample["music"].dtype == np.int64
    assert sample["music"] == 1
    assert sample["name"] == "music 4"


def test_every_pass_and_every_use_shows_the_same_text(options: DataOptions) -> None:
    training, evaluation = (open_fdu_mtl(options, "train", training)["books"] for training in (True, False))
    for pass_number in (0, 5):
        np.testing.assert_array_equal(training[pass_number, 1]["text"], evaluation[0, 1]["text"])


def test_lines_of_any_encoding_survive(tmp_path: Path) -> None:
    lines = ["0\tcafé".encode(), b"1\tcaf\xe9 \x97 \x93so\x94", b"0\tno\x81where", b"1\twindows\r"]
    reviews = one_domain(tmp_path, lines)
    assert texts_of(reviews)[:3] == ["café", "café — “so”", "no\x81where"]
    assert "windows" in reviews.vocabulary.words  # without the carriage return


@pytest.mark.parametrize("inside", ["\x85", "\u2028", "\x0c", "\x1c", "\r"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, inside: str) -> None:
    reviews = one_domain(tmp_path, [f"0\tfirst{inside}half".encode(), b"1\tsecond"])
    assert texts_of(reviews) == [f"first{inside}half", "second"]


def test_last_line_may_end_without_line_feed_and_text_may_hold_tabs(tmp_path: Path) -> None:
    write_domain(tmp_path, "books", [], [b"0\tfine"])
    (tmp_path / "books.task.train").write_bytes(b"0\tone\n1\ttwo\tthree")
    reviews = open_fdu_mtl(options_of(tmp_path, {"books": 2}), "train", True)["books"]
    assert texts_of(reviews) == ["one", "two\tthree"]
    assert {"two", "three"} <= set(reviews.vocabulary.words)


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n \n"])
def test_mark_at_the_start_and_blank_lines_at_the_end_are_no_reviews(tmp_path: Path, end: bytes) -> None:
    write_domain(tmp_path, "books", [], [b"0\tfine"])
    (tmp_path / "books.task.train").write_bytes(b"\xef\xbb\xbf0\tone\n1\t" + end)
    reviews = open_fdu_mtl(options_of(tmp_path, {"books": 2}), "train", True)["books"]
    assert [(review.line, review.label, review.text.strip()) for review in reviews.reviews] == [
        (1, 0, "one"),
        (2, 1, ""),
    ]


def test_review_without_words_is_kept_as_padding_alone(tmp_path: Path) -> None:
    reviews = one_domain(tmp_path, [b"0\t", b"1\tgood", b"0\t"])
    assert len(reviews) == 3
    for index in (0, 2):
        assert not reviews[0, index]["text"].any()
    assert reviews[0, 1]["text"][0] == 2


# Vocabulary


def test_vocabulary_is_that_of_the_train_split_of_all_domains(options: DataOptions) -> None:
    vocabularies = [
        domain.vocabulary
        for split in ("train", "train1", "train2", "val", "test")
        for domain in open_fdu_mtl(options, split, False).values()
    ]
    assert all(vocabulary is vocabularies[0] for vocabulary in vocabularies)
    expected = {"page", "tune", *(f"page{n}" for n in range(10)), *(f"tune{n}" for n in range(20))}
    assert set(vocabularies[0].words) == expected


def test_vocabulary_knows_nothing_of_held_out_reviews(options: DataOptions) -> None:
    held_out = open_fdu_mtl(replace(options, validation="held_out"), "val", False)
    assert [len(domain) for domain in held_out.values()] == [1, 2]
    for domain in held_out.values():
        for text in texts_of(domain):
            assert text.split()[1] not in domain.vocabulary.words


def test_vocabulary_of_a_checkpoint_wins_and_needs_no_train_file(options: DataOptions) -> None:
    (options.dataroot / "books.task.train").unlink()
    (options.dataroot / "music.task.train").unlink()
    books = open_fdu_mtl(replace(options, vocabulary=("spine2", "spine")), "test", False)["books"]
    assert books.vocabulary.words == ("spine2", "spine")
    assert books[0, 2]["text"].tolist() == [3, 2, 0, 0]
    with pytest.raises(UserError, match=r"books\.task\.\* has no split 'train'"):
        open_fdu_mtl(options, "test", False)


def test_vocabulary_has_the_size_asked_for(options: DataOptions) -> None:
    books = open_fdu_mtl(replace(options, num_words=4), "train", True)["books"]
    assert books.vocabulary.words == ("tune", "page")
    assert books[0, 0]["text"].tolist() == [3, 1, 0, 0]


# Splits


def test_splits_of_a_domain(options: DataOptions) -> None:
    sizes = {
        split: [len(domain) for domain in open_fdu_mtl(options, split, False).values()]
        for split in ("train", "train1", "train2", "val", "test")
    }
    assert sizes == {"train": [10, 20], "train1": [8, 16], "train2": [2, 4], "val": [3, 5], "test": [3, 5]}
    parts = [texts_of(open_fdu_mtl(options, split, True)["music"]) for split in ("train1", "train2")]
    assert sorted([*parts[0], *parts[1]]) == sorted(texts_of(open_fdu_mtl(options, "train", True)["music"]))
    notes = open_fdu_mtl(options, "train", True)["music"].notes
    assert len(notes) == 1
    assert "music.task.* lists no train1 and train2: its train split is divided into 16 and 4 samples" in notes[0]


@pytest.mark.parametrize("validation", ["test", "held_out"])
def test_reviews_of_the_same_words_stay_on_one_side(tmp_path: Path, validation: str) -> None:
    train = numbered("page", 10)
    write_domain(tmp_path, "books", [*train, *numbered("spine", 10), *train, *train], train[:4])
    splits = {
        split: [review.text for review in reviews]
        for split, reviews in resolve_splits(tmp_path, "books", 2, validation).members.items()
    }
    assert splits["test"] == [f"page page{number}" for number in range(4)], "the test file stays as it is"
    assert len(splits["train1"]) + len(splits["train2"]) == len(splits["train"])
    parts = [splits["train1"], splits["train2"], *([splits["val"]] if validation == "held_out" else [])]
    assert sum(map(len, parts)) == 40
    assert sum(len(set(part)) for part in parts) == 20, "no text in two parts"


# Bad files


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"good book", "has no TAB"),
        (b"", "has no TAB"),
        (b"2\tgood book", r"has the label '2', but .* 0\.\.1"),
        (b"-1\tgood book", r"has the label '-1', but .* 0\.\.1"),
        (b"good\tbook", r"has the label 'good', but .* 0\.\.1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=rf"line 2 of {tmp_path / 'books.task.train'} {reason}"):
        one_domain(tmp_path, [b"0\tfine", line, b"1\tfine"])


def test_labels_reach_as_far_as_the_domains_classes(tmp_path: Path) -> None:
    assert one_domain(tmp_path, [b"2\tfine"], {"books": 3})[0, 0]["books"] == 2
    with pytest.raises(UserError, match=r"0\.\.2"):
        one_domain(tmp_path, [b"3\tfine"], {"books": 3})


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path / 'books.task.train'} is empty"):
        one_domain(tmp_path, [])


def test_an_unknown_domain_is_answered_with_the_known_ones(options: DataOptions) -> None:
    with pytest.raises(UserError, match=r"has no toys\.task\.train: .*'toys'.* books, music"):
        open_fdu_mtl(replace(options, targets={"books": 2, "toys": 2}), "train", True)


def test_a_data_root_that_is_no_folder_is_named(options: DataOptions) -> None:
    missing = options.dataroot / "missing"
    with pytest.raises(UserError, match=rf"{missing} is not a folder"):
        open_fdu_mtl(replace(options, dataroot=missing), "train", True)
