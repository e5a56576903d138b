"""Losses of steps in the log: means, raw and weighted, at the right steps, whatever stops lie between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from envs.step_reports import StepReports
from tests.small_runs import logged
from utils.logger import RunLogger

LOSS_WEIGHTS = {"seg": 1.0, "depth": 3.0, "sparsity": 0.5}


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[StepReports]:
    with RunLogger(tmp_path) as logger:
        yield StepReports(logger, "weights", 2, LOSS_WEIGHTS)


def losses(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_reports_are_means_raw_and_weighted_with_the_state(
    reports: StepReports, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for iteration, seg in enumerate((1.0, 3.0, 5.0, 6.0, 9.0), start=1):
        state = {"temperature": 5.0 - iteration}
        reports.add(iteration, losses(seg=seg, depth=2.0, sparsity=0.5, total=seg + 6), state)
    first, second = logged(tmp_path)
    assert first == {
        "kind": "weights",
        "iteration": 2,
        "loss/seg": 2.0,
        "loss/depth": 2.0,
        "loss/sparsity": 0.5,
        "loss/total": 8.0,
        "weighted/seg": 2.0,
        "weighted/depth": 6.0,
        "weighted/sparsity": 0.25,
        "temperature": 3.0,
    }
    assert (second["iteration"], second["loss/seg"], second["temperature"]) == (4, 5.5, 1.0)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "iteration 2: seg 2.0000  depth 2.0000  sparsity 0.5000  total 8.0000"


def test_what_a_period_leaves_is_reported_at_its_end_and_not_again(reports: StepReports, tmp_path: Path) -> None:
    for iteration, seg in enumerate((1.0, 3.0, 7.0), start=1):
        reports.add(iteration, losses(seg=seg), {"temperature": 7.0 - iteration})
    reports.report(3)
    reports.report(3)
    for iteration, seg in enumerate((10.0, 20.0), start=8):
        reports.add(iteration, losses(seg=seg), {})
    assert [(line["iteration"], line["loss/seg"]) for line in logged(tmp_path)] == [(2, 2.0), (3, 7.0), (9, 15.0)]
    assert logged(tmp_path)[1]["temperature"] == 4.0


def test_without_steps_nothing_is_reported(reports: StepReports, tmp_path: Path) -> None:
    reports.report(0)
    assert logged(tmp_path) == []


def test_what_is_not_reported_yet_is_reported_by_those_who_go_on(reports: StepReports, tmp_path: Path) -> None:
    reports.add(1, losses(seg=1.0), {"temperature": 5.0})
    with RunLogger(tmp_path / "resumed") as logger:
        resumed = StepReports(logger, "weights", 2, LOSS_WEIGHTS)
        resumed.restore(reports.unreported(), torch.device("cpu"))
        resumed.report(1)
    reports.add(2, losses(seg=2.0), {"temperature": 4.0})
    (of_resumed,), (straight,) = logged(tmp_path / "resumed"), logged(tmp_path)
    assert (of_resumed["loss/seg"], of_resumed["temperature"]) == (1.0, 5.0)
    assert (straight["loss/seg"], straight["temperature"]) == (1.5, 4.0)
