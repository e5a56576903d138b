"""How bad input reaches the user: one sentence and exit code 2; and folders that cannot be."""

import os
from pathlib import Path

import pytest

from utils.errors import UserError, exit_on_user_error
from utils.files import make_folder


def test_a_user_error_becomes_its_sentence_and_exit_code_2(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        raise UserError("the data root is missing: give another.")
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.err == "error: the data root is missing: give another.\n"
    assert captured.out == ""


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(KeyError, match="seg"), exit_on_user_error():
        raise KeyError("seg")


def test_without_an_error_the_script_ends_as_it_is() -> None:
    with exit_on_user_error():
        done = True
    assert done


# Folders


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "runs" / "logs")
        assert os.listdir(tmp_path / "runs" / "logs") == []


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_file_in_the_place_of_a_folder_is_named_and_kept(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "logs"
    file.write_text("kept")
    with pytest.raises(UserError, match=rf"{file / inside}: .*folder"):
        make_folder(file / inside)
    assert file.read_text() == "kept"


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError, match=r"runs: .*Permission denied"):
        make_folder(tmp_path / "runs")
