"""What a run says: scalars as JSON lines and events, messages, progress, and how a log goes on after a stop."""

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from tensorboardX.proto import event_pb2

from utils.errors import UserError
from utils.logger import RunLogger, RunningMeans, SilentLogger
from utils.progress import progress_bar


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_scalars_become_json_lines_with_null_for_what_is_no_number(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as logger:
        logger.scalars("train", 100, {"loss/seg": 2.5, "loss/sn": math.nan, "total": math.inf})
        logger.scalars("evaluation", 200, {"score": 1.0, "release/seg/mIoU": None})
    assert logged(tmp_path) == [
        {"kind": "train", "iteration": 100, "loss/seg": 2.5, "loss/sn": None, "total": None},
        {"kind": "evaluation", "iteration": 200, "score": 1.0, "release/seg/mIoU": None},
    ]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_a_line_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as logger:
        logger.scalars("train", 1, {"total": 1.0})
        logger.message("half way")
        assert len(logged(tmp_path)) == 1
        assert "half way" in (tmp_path / "log.txt").read_text()


def log_iterations(folder: Path, iterations: Iterable[int], value: float, iteration: int = 0, position: int = 0) -> int:
    """Log a value for each iteration; returns the position after them."""
    with RunLogger(folder, iteration, position) as logger:
        logger.message("a run begins")
        for number in iterations:
            logger.scalars("weights", number, {"loss": value})
        return logger.position()


def test_a_run_that_goes_on_keeps_what_was_logged_when_it_was_saved_and_drops_the_rest(tmp_path: Path) -> None:
    position = log_iterations(tmp_path, range(1, 5), value=1.0)
    log_iterations(tmp_path, (5, 6), value=1.0, iteration=4, position=position)
    (tmp_path / "metrics.jsonl").open("a").write('{"kind": "weights", "itera')
    assert log_iterations(tmp_path, (5, 6), value=2.0, iteration=4, position=position) > position
    lines = [(line["iteration"], line["loss"]) for line in logged(tmp_path)]
    assert lines == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0)]


def test_a_new_run_replaces_the_metrics_of_an_earlier_one_but_not_its_log(tmp_path: Path) -> None:
    log_iterations(tmp_path, range(1, 3), value=1.0)
    log_iterations(tmp_path, range(1, 3), value=2.0)
    assert [line["loss"] for line in logged(tmp_path)] == [2.0, 2.0]
    assert (tmp_path / "log.txt").read_text().count("a run begins") == 2


def test_metrics_that_are_lost_are_missed(tmp_path: Path) -> None:
    log_iterations(tmp_path, (5, 6), value=2.0, iteration=4, position=200)
    assert [line["iteration"] for line in logged(tmp_path)] == [5, 6]
    assert "some of its earlier lines are lost" in (tmp_path / "log.txt").read_text()


def test_tensorboard_gets_every_value_once_a_run_goes_on(tmp_path: Path) -> None:
    log_iterations(tmp_path, range(1, 4), value=1.0)
    (first,) = tmp_path.glob("events.*")
    with first.open("rb") as file:
        content = file.read()
    first.unlink()
    log_iterations(tmp_path, (3, 4), value=2.0, iteration=2)
    (second,) = tmp_path.glob("events.*")
    assert points(content) == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert points(second.read_bytes()) == [(3, 2.0), (4, 2.0)]
    starts = [event.step for event in events(second.read_bytes()) if event.session_log.status]
    assert starts == [3]


def events(content: bytes) -> list[event_pb2.Event]:
    """The records of an event file: length, checksum, event, checksum."""
    found = []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def points(content: bytes) -> list[tuple[int, float]]:
    """(iteration, value) of the curve of the loss."""
    return [
        (event.step, value.simple_value)
        for event in events(content)
        for value in event.summary.value
        if value.tag == "weights/loss"
    ]


def test_a_silent_logger_goes_through_the_iterations_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with SilentLogger(tmp_path / "logs") as logger:
        assert list(logger.progress(range(3, 5), "weights", 10)) == [3, 4]
        logger.message("said")
        logger.show(3, {"seg": 1.0})
        logger.scalars("weights", 3, {"seg": 1.0})
        logger.line("bad_step", 3)
        assert logger.position() == 0
    assert (logger.folder, capsys.readouterr().out) == (tmp_path / "logs", "")
    assert not (tmp_path / "logs").exists()


def test_a_log_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(UserError, match="logs"):
        RunLogger(tmp_path / "logs")


def test_messages_are_printed_and_kept_with_their_time(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with RunLogger(tmp_path / "new" / "folder") as logger:
        logger.message("warm-up finished, größer")
    assert capsys.readouterr().out == "warm-up finished, größer\n"
    kept = (tmp_path / "new" / "folder" / "log.txt").read_text(encoding="utf-8")
    date, _, rest = kept.partition(" ")
    time, _, text = rest.partition(" ")
    assert (len(date.split("-")), len(time.split(":"))) == (3, 3)
    assert text == "warm-up finished, größer\n"


def test_without_a_terminal_losses_are_shown_as_lines(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with RunLogger(tmp_path) as logger:
        seen = []
        for iteration in logger.progress(range(4, 7), "weights", 10):
            seen.append(iteration)
            logger.show(iteration, {"seg": 2.0, "total": 0.12345})
    assert seen == [4, 5, 6]
    assert capsys.readouterr().out.splitlines()[1] == "iteration 5: seg 2.0000  total 0.1235"


def test_means_are_those_since_the_last_report() -> None:
    means = RunningMeans()
    assert (means.count, means.pop()) == (0, {})
    means.update({"seg": torch.tensor(1.0), "total": torch.tensor(10.0)})
    means.update({"seg": torch.tensor(2.0), "total": torch.tensor(20.0)})
    assert means.count == 2
    assert means.pop() == {"seg": 1.5, "total": 15.0}
    means.update({"seg": torch.tensor(4.0)})
    assert (means.count, means.pop()) == (1, {"seg": 4.0})
    assert (means.count, means.pop()) == (0, {})


def test_a_progress_bar_hands_its_items_on() -> None:
    with progress_bar(range(3, 6), "weights", total=10, start=2) as bar:
        assert (bar.total, bar.n, list(bar)) == (10, 2, [3, 4, 5])
