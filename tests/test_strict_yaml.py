"""YAML of configurations: what is plain stays what it looks like, and where the bounds of a document lie."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from utils.errors import UserError
from utils.strict_yaml import MAX_BYTES, format_yaml, parse_yaml, read_yaml, yaml_problem


def problem_of(text: str) -> str:
    """What is wrong with a document."""
    with pytest.raises(yaml.YAMLError) as caught:
        parse_yaml(text)
    return yaml_problem(caught.value)


@pytest.mark.parametrize("text", ["=", "<<", "2024-01-31", "null", "1e3", "0x1F", "a: b", "café", "日本 語", "~", ""])
def test_text_stays_text_there_and_back(text: str) -> None:
    assert parse_yaml(format_yaml({"key": text, text: [text]})) == {"key": text, text: [text]}


def test_signs_that_other_documents_give_a_meaning_are_text() -> None:
    assert parse_yaml("a: =\n<<: {b: 1}") == {"a": "=", "<<": {"b": 1}}


@pytest.mark.parametrize(("text", "value"), [("0x1F", 31), ("-1_000", -1000), ("1.5", 1.5), (".inf", float("inf"))])
def test_numbers_are_numbers(text: str, value: float) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


@pytest.mark.parametrize(
    ("within", "beyond", "problem"),
    [
        ("a: [" + "1," * 997 + "]", "a: [" + "1," * 998 + "]", "more than 1000 keys and values"),
        ("[" * 16 + "]" * 16, "[" * 17 + "]" * 17, "more than 16 levels of nesting"),
        ("k" * 100 + ": 1", "k" * 101 + ": 1", "a key of 101 characters, write one of at most 100"),
        ("9" * 100, "9" * 101, "a number of 101 characters, write a shorter one"),
        ("1:59.5" + "0" * 94, "1:59.5" + "0" * 95, "a number of 101 characters, write a shorter one"),
    ],
)
def test_a_document_is_read_up_to_its_bounds(within: str, beyond: str, problem: str) -> None:
    assert parse_yaml(within) is not None
    assert problem_of(beyond) == f"in line 1: {problem}"


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_bytes(b"a: 1\n#".ljust(MAX_BYTES))
    assert read_yaml(path) == {"a": 1}
    path.write_bytes(b"a: 1\n#".ljust(MAX_BYTES + 1))
    with pytest.raises(UserError, match=r"config\.yml: expected a configuration of at most 64 KB, found more"):
        read_yaml(path)


def test_a_file_that_grows_while_it_is_read_is_not_called_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yml"
    path.write_bytes(b"a: 1\n")
    monkeypatch.setattr(os, "fstat", lambda _: SimpleNamespace(st_size=4))
    with pytest.raises(UserError, match=r"config\.yml: cannot be read \(it is still being written\); expected"):
        read_yaml(path)


@pytest.mark.parametrize("escape", [r"\0", r"\n", r"\t", r"\e", r"\x7f", r"\x9b", r"\N", r"\L", r"\ud800", r"\udfff"])
def test_what_cannot_be_printed_cannot_be_written_as_an_escape(escape: str) -> None:
    assert problem_of(f'a: 1\nb: "c{escape}d"').startswith("in line 2: text with a line break or a character that cann")
    assert problem_of(f'a: 1\n"c{escape}d": b').startswith("in line 2: text with a line break or a character that cann")


@pytest.mark.parametrize("text", [r'"\UFFFFFFFF"', r'"\U00110000"', "0b_", f"%YAML {'9' * 5000}.1\n---\n1"])
def test_what_python_refuses_is_a_problem_of_the_document(text: str) -> None:
    assert problem_of(text).isprintable()


def test_folders_and_names_that_no_file_system_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a YAML file, found a folder"):
        read_yaml(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read \(File name too long\)"):
        read_yaml(tmp_path / ("a" * 5000))
