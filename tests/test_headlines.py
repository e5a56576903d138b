"""Which numbers stand for a run where there is little room."""

import pytest

from envs.headlines import MANY, headlines_of
from envs.task_sets import build_tasks
from envs.tasks import Task


def domains(count: int) -> dict[str, Task]:
    return build_tasks("DomainNet", [f"domain{number}" for number in range(count)], [7] * count)


def test_tasks_of_different_kinds_have_one_each_and_no_mean() -> None:
    headlines = headlines_of(build_tasks("NYU_v2", ["sn", "seg"], [3, 40]))
    assert [(headline.title, headline.lower_is_better) for headline in headlines] == [
        ("sn Angle Mean", True),
        ("seg mIoU", False),
    ]


def test_alike_tasks_have_their_mean_too_and_many_only_that() -> None:
    assert [headline.title for headline in headlines_of(domains(1))] == ["domain0 accuracy"]
    assert [headline.title for headline in headlines_of(domains(2))] == [
        "domain0 accuracy",
        "domain1 accuracy",
        "mean accuracy",
    ]
    assert len(headlines_of(domains(MANY))) == MANY + 1
    assert [headline.title for headline in headlines_of(domains(MANY + 1))] == ["mean accuracy"]


def test_the_mean_is_over_the_tasks_and_missing_where_one_is() -> None:
    *_, mean = headlines_of(domains(2))
    assert mean.value({"domain0": {"accuracy": 0.5}, "domain1": {"accuracy": 0.9}}) == pytest.approx(0.7)
    assert mean.value({"domain0": {"accuracy": 0.5}, "domain1": {"accuracy": None}}) is None
    assert mean.value({"domain0": {"accuracy": 0.5}, "domain1": None}) is None
