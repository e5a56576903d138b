"""Where there is room for one number per task, or not even that: which numbers to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from envs.metrics import Values
from envs.tasks import Task

MANY = 6
"""Beyond so many alike tasks, their mean stands for all of them."""


@dataclass(frozen=True)
class Headline:
    """The mean of one metric over some tasks, mostly over one."""

    title: str
    metric: str
    tasks: Sequence[str]
    lower_is_better: bool

    def value(self, metrics: Mapping[str, Values | None]) -> float | None:
        """From {task: {metric: value}} of one protocol; None where a task lacks the value."""
        values = [(metrics[task] or {}).get(self.metric) for task in self.tasks]
        return None if None in values else mean(values)


def headlines_of(tasks: Mapping[str, Task]) -> list[Headline]:
    """Each task's foremost metric; of alike tasks (the domains of one problem) their mean too, of many it alone."""
    single = [
        Headline(f"{name} {task.headline}", task.headline, [name], task.headline in task.lower_is_better)
        for name, task in tasks.items()
    ]
    if len(tasks) == 1 or not are_alike(tasks):
        return single
    together = Headline(f"mean {single[0].metric}", single[0].metric, list(tasks), single[0].lower_is_better)
    return [together] if len(tasks) > MANY else [*single, together]


def are_alike(tasks: Mapping[str, Task]) -> bool:
    """Whether all tasks classify their inputs, so that a mean over them says something."""
    return not any(task.per_pixel for task in tasks.values())
