"""Files that are whole or not there."""

import json
import stat
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import write_json, write_text


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
