"""Files that are whole or not there."""

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from utils.errors import UserError
from utils.files import read_bounded, read_json, write_json, write_text


def test_json_keeps_rows_of_numbers_on_one_line_and_reads_back(tmp_path: Path):
    value = {
        "gates": {"seg": [1, 0, 1], "sn": [0, 1, 1]},
        "P": [[0.5, -1e-07], [1.0, 2]],
        "names": ["[\n 1 ]"],
    }
    write_json(tmp_path / "new" / "folder" / "gates.json", value)
    text = (tmp_path / "new" / "folder" / "gates.json").read_text()
    assert json.loads(text) == value
    assert '    "seg": [1, 0, 1],\n    "sn": [0, 1, 1]\n' in text
    assert "    [0.5, -1e-07],\n" in text


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_json_does_not_have_and_keeps_the_old_file(tmp_path: Path, number: float):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", [number])
    assert json.loads((tmp_path / "a.json").read_text()) == [1]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_writing_below_a_file_is_refused_and_permissions_are_the_usual_ones(tmp_path: Path):
    write_text(tmp_path / "a.txt", "one")
    (tmp_path / "plain.txt").write_text("two")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "plain.txt")}
    assert len(modes) == 1
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "a.txt" / "b.txt", "three")


def test_what_is_read_is_a_regular_file_of_bounded_size(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4e-06 MB"):
        read_bounded(path, 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        read_bounded(tmp_path / "pipe", 5)
    with pytest.raises(ValueError, match="a folder"):
        read_bounded(tmp_path, 5)


def test_what_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"12345")
    monkeypatch.setattr(os, "fstat", lambda _: SimpleNamespace(st_size=4))
    with pytest.raises(ValueError, match="still being written"):
        read_bounded(path, 5)
    monkeypatch.setattr(os, "fstat", lambda _: SimpleNamespace(st_size=5))
    assert read_bounded(path, 5) == b"12345"


def test_json_has_bounds_in_bytes_that_letters_beyond_ascii_use_up_sooner(tmp_path: Path):
    path = tmp_path / "a.json"
    within = {"in ascii": f'"{"a" * 398}"', "not in ascii": f'"{"é" * 49}"'}
    beyond = {"larger than 0.0004 MB": f'"{"a" * 399}"', "larger than 0.0001 MB": f'"{"é" * 49}a"'}
    for text in within.values():
        path.write_text(text, encoding="utf-8")
        assert read_json(path, most_bytes=400) == json.loads(text)
    for reason, text in beyond.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=reason):
            read_json(path, most_bytes=400)


def test_a_key_of_json_counts_as_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": 2}')
    monkeypatch.setattr("utils.files.MOST_JSON_VALUES", 4)
    assert read_json(path) == {"a": 1, "b": 2}
    monkeypatch.setattr("utils.files.MOST_JSON_VALUES", 3)
    with pytest.raises(UserError, match="more than 3 values"):
        read_json(path)


BAD_JSON = {
    "more values than fit": ("[" + "1," * 6_000_000 + "1]", "more than 6000000 values"),
    "nesting": ("[" * 100_000, "nested too deeply|Expecting value"),
    "a key twice": ('{"train": [], "train": [1]}', "the key 'train' stands there twice"),
    "bytes that are no text": ("\udcff", "can't decode|surrogates"),
    "an endless number": ("1" * 5000, "digits"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_json_that_is_out_of_bounds_is_refused_with_its_name(tmp_path: Path, case: str):
    content, reason = BAD_JSON[case]
    path = tmp_path / "splits.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=reason) as error:
        read_json(path)
    assert str(path) in str(error.value)
