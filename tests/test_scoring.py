"""The score that chooses `best`, and the paper's gain over single-task networks, by hand."""

import pytest

from envs.metrics import Values
from envs.scoring import LARGEST_GAIN, gain, relative_performance, score
from envs.task_sets import build_tasks
from envs.tasks import Task

TWO_TASKS = build_tasks("NYU_v2", ["seg", "sn"], [40, 3])
THREE_TASKS = build_tasks("NYU_v2", ["seg", "sn", "depth"], [40, 3, 1])
CITYSCAPES = build_tasks("CityScapes", ["seg", "depth"], [7, 1], small_res=True)
TASKONOMY = build_tasks("Taskonomy", ["seg", "sn", "depth", "keypoint", "edge"], [17, 3, 1, 1, 1])
DOMAINS = build_tasks("DomainNet", ["real", "sketch"], [345, 345])


def as_good_as_references(tasks: dict[str, Task]) -> dict[str, Values]:
    """Metrics of a run that equals the reference in every respect."""
    return {
        name: dict.fromkeys(task.metrics["release"]().names, 1.0) | dict(task.references)
        for name, task in tasks.items()
    }


# The score


@pytest.mark.parametrize("tasks", [TWO_TASKS, THREE_TASKS, CITYSCAPES, TASKONOMY, DOMAINS])
def test_single_task_quality_is_one_per_task(tasks: dict[str, Task]) -> None:
    assert score(as_good_as_references(tasks), tasks) == pytest.approx(len(tasks))


def test_score_by_hand() -> None:
    metrics = {
        "seg": {"mIoU": 0.1652, "Pixel Acc": 0.691, "err": 9.0},
        "sn": {
            "Angle Mean": 30.0,
            "Angle Median": 23.0,
            "Angle 11.25": 24.6,
            "Angle 22.5": 76.7,
            "Angle 30": 86.8,
        },
    }
    segmentation = (0.4 + 1) / 2
    normals = (0.5 + 0.5 + 0.5 + 1 + 1) / 5
    assert score(metrics, TWO_TASKS) == pytest.approx(segmentation + normals)


def test_score_of_cityscapes_by_hand() -> None:
    metrics = {
        "seg": {"mIoU": 0.519 * 1.2, "Pixel Acc": 0.722, "err": 9.0},
        "depth": {"abs_err": 0.034, "rel_err": 0.33, "sigma_1.25": 70.3, "sigma_1.25^2": 86.3, "sigma_1.25^3": 0.0},
    }
    assert score(metrics, CITYSCAPES) == pytest.approx((1.2 + 1) / 2 + (0.5 + 1 + 1 + 1 + 0) / 5)


def test_score_of_taskonomy_by_hand() -> None:
    metrics = {
        "seg": {"err": 0.517 / 2, "mIoU": 0.9},
        "sn": {"cosine_similarity": 0.716 / 2, "Angle Mean": 3.0},
        "depth": {"abs_err": 0.021 / 3},
        "keypoint": {"err": 0.197 * 4},
        "edge": {"err": 0.212 * 5},
    }
    assert score(metrics, TASKONOMY) == pytest.approx(2 + 0.5 + 3 + 1 / 4 + 1 / 5)


def test_score_of_domains_is_the_sum_of_their_accuracies() -> None:
    metrics = {"real": {"accuracy": 0.7, "err": 1.0}, "sketch": {"accuracy": 0.4, "err": 2.0}}
    assert score(metrics, DOMAINS) == pytest.approx(1.1)


def test_a_value_that_does_not_exist_adds_nothing() -> None:
    metrics = as_good_as_references(THREE_TASKS)
    metrics["depth"] = dict.fromkeys(metrics["depth"])
    metrics["seg"]["mIoU"] = None
    assert score(metrics, THREE_TASKS) == pytest.approx(0.5 + 1)


def test_an_error_of_zero_stays_finite() -> None:
    metrics = as_good_as_references(THREE_TASKS)
    metrics["depth"]["abs_err"] = 0.0
    assert score(metrics, THREE_TASKS) == pytest.approx(2 + (LARGEST_GAIN + 4) / 5)


@pytest.mark.parametrize(
    ("value", "lower_is_better", "expected"),
    [
        (3.0, False, 1.5),
        (3.0, True, 2 / 3),
        (0.0, False, 0.0),
        (0.0, True, LARGEST_GAIN),
        (2 / LARGEST_GAIN / 10, True, LARGEST_GAIN),
        (None, False, 0.0),
        (None, True, 0.0),
    ],
)
def test_a_gain_is_a_ratio_turned_where_lower_is_better(
    value: float | None, lower_is_better: bool, expected: float
) -> None:
    assert gain(value, 2.0, lower_is_better) == pytest.approx(expected)


# The gain over single-task networks


def test_relative_performance_by_hand() -> None:
    single, multi = as_good_as_references(TWO_TASKS), as_good_as_references(TWO_TASKS)
    multi["seg"]["mIoU"] *= 1.2
    multi["seg"]["err"] = 100.0
    multi["sn"]["Angle Mean"] *= 0.9
    multi["sn"]["Angle 30"] *= 0.8
    expected = {"seg": 20 / 2, "sn": (10 - 20) / 5}
    assert relative_performance(multi, single, TWO_TASKS) == pytest.approx(expected)


def test_metrics_that_cannot_be_compared_are_left_out() -> None:
    single, multi = as_good_as_references(TWO_TASKS), as_good_as_references(TWO_TASKS)
    single["seg"]["Pixel Acc"] = 0.0
    multi["seg"]["mIoU"] *= 1.5
    multi["sn"] = dict.fromkeys(multi["sn"])
    assert relative_performance(multi, single, TWO_TASKS) == {"seg": pytest.approx(50), "sn": None}
