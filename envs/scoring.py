"""How good a run is: the score that chooses `best`, and the paper's gain over single-task networks."""

from collections.abc import Mapping
from statistics import mean

from envs.metrics import Values
from envs.tasks import Task

LARGEST_GAIN = 1000.0
"""A minimised metric that is 0 would score infinitely high; no metric scores more than this."""


def score(metrics: Mapping[str, Values], tasks: Mapping[str, Task]) -> float:
    """How good a run is, to choose the `best` checkpoint (release): higher is better.

    For each task the mean over its references of value / reference, or reference / value where lower is
    better; summed over the tasks. A network as good as the single-task ones scores 1 per task.

    Args:
        metrics: {task: {metric: value}} under the release protocol. A value that does not exist (None: no
            valid pixel) adds 0, as the worst value would.
        tasks: records with references.
    """
    return sum(task_score(metrics[name], task) for name, task in tasks.items())


def task_score(values: Values, task: Task) -> float:
    """Mean over the task's references of `gain`; the term of one task in `score`."""
    gains = [
        gain(values[metric], reference, metric in task.lower_is_better) for metric, reference in task.references.items()
    ]
    return mean(gains)


def gain(value: float | None, reference: float, lower_is_better: bool) -> float:
    """value / reference, or its inverse where lower is better; 0 for None, at most `LARGEST_GAIN`."""
    if value is None:
        return 0.0
    if lower_is_better:
        return reference / max(value, reference / LARGEST_GAIN)
    return value / reference


def relative_performance(
    metrics: Mapping[str, Values], single_task_metrics: Mapping[str, Values], tasks: Mapping[str, Task]
) -> dict[str, float | None]:
    """What a multi-task network gains over single-task networks, in % (paper, Delta_T).

    For each task, 100 times the mean over the metrics that the paper reports (those with a reference) of
    (M - M_single) / M_single, with the sign turned where lower is better. The paper's overall figure is the
    mean over the tasks.

    Args:
        metrics: {task: {metric: value}} of the multi-task network.
        single_task_metrics: the same, of one network per task, under the same protocol.
        tasks: records with references.

    Returns:
        {task: %}, positive where the multi-task network is better. Metrics that either side lacks, or whose
        single-task value is 0, are left out; a task with none left is None.
    """
    return {
        name: task_relative_performance(metrics[name], single_task_metrics[name], task) for name, task in tasks.items()
    }


def task_relative_performance(values: Values, single_task_values: Values, task: Task) -> float | None:
    """The term of one task in `relative_performance`, in %."""
    changes = []
    for metric in task.references:
        value, single_task_value = values[metric], single_task_values[metric]
        if value is None or not single_task_value:
            continue
        sign = -1 if metric in task.lower_is_better else 1
        changes.append(sign * (value - single_task_value) / single_task_value)
    return 100 * mean(changes) if changes else None
