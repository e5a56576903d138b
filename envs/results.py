"""What a finished phase leaves behind: results files, and the tables that the scripts print."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from envs.evaluation import Evaluation
from envs.run import ScoredEvaluation
from envs.tasks import PROTOCOLS, Task
from utils.errors import UserError
from utils.tables import format_table


def test_result(
    gates: Mapping[str, Sequence[int]],
    evaluation: Evaluation,
    constant: Evaluation | None,
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    """What test.py writes of one architecture; metrics {protocol: {task: {metric: value} or None}}.

    `constant` is the evaluation of the constant predictor, if it was asked for.
    """
    return {
        "num_samples": evaluation.num_samples,
        "policy": dict(gates),
        "metrics": evaluation.metrics,
        **({"constant_predictor": constant.metrics} if constant else {}),
        "cost": {**cost, "seconds_per_image": evaluation.seconds_per_image},
    }


def retraining_result(
    exp_id: int,
    seed: int,
    policy_iter: str,
    gates: Mapping[str, Sequence[int]],
    best: ScoredEvaluation,
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    """What re-train.py writes of one architecture; metrics are those of its best evaluation while training."""
    return {
        "exp_id": exp_id,
        "seed": seed,
        "policy_iter": policy_iter,
        "gates": dict(gates),
        "score": best.score,
        "best_iteration": best.iteration,
        "num_samples": best.evaluation.num_samples,
        "metrics": best.evaluation.metrics,
        "cost": {**cost, "seconds_per_image": best.evaluation.seconds_per_image},
    }


def collect_retraining(folder: Path, architectures: Mapping[int, Mapping[str, Sequence[int]]]) -> list[dict[str, Any]]:
    """The results of those architectures that are retrained so far, in the order of their exp_ids.

    Args:
        architectures: exp_id -> the gates that policy and seed give now. A run of other gates, left by an
            earlier policy or configuration in the same folder, does not count.
    """
    runs = []
    for exp_id, gates in sorted(architectures.items()):
        path = folder / f"retrain{exp_id:03d}.json"
        if path.is_file():
            run = json.loads(path.read_text(encoding="utf-8"))
            runs += [run] if run["gates"] == gates else []
    return runs


def best_retrained(folder: Path) -> int:
    """exp_id of the best run in `retrain.json`.

    Raises:
        UserError: there is no such file, or it is not one of re-train.py's.
    """
    path = folder / "retrain.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["best"]["exp_id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--best: {path} does not say which run is best; run re-train.py first.") from error


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Best run, mean and sample standard deviation over retrained architectures.

    Args:
        runs: each with "exp_id", "seed", "score" and "metrics" {protocol: {task: {metric: value} or None}}.

    Returns:
        "best" (exp_id, seed and score), "mean" and "std" of score and metrics, in the shape of a run; None
        where a run lacks the value, and for the deviation of a single run.
    """
    best = max(runs, key=lambda run: run["score"])
    values = [{"score": run["score"], "metrics": run["metrics"]} for run in runs]
    return {
        "best": {key: best[key] for key in ("exp_id", "seed", "score")},
        "mean": _over_runs(mean, values),
        "std": _over_runs(lambda numbers: stdev(numbers) if len(numbers) > 1 else None, values),
    }


def _over_runs(statistic: Callable[[list[float]], float | None], values: Sequence[Any]) -> Any:
    """Apply a statistic to equal nested dicts, leaf by leaf."""
    if any(value is None for value in values):
        return None
    if isinstance(values[0], Mapping):
        return {key: _over_runs(statistic, [value[key] for value in values]) for key in values[0]}
    return statistic(list(values))


def retraining_table(runs: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], tasks: Mapping[str, Task]) -> str:
    """One row per architecture with score and each task's foremost metric (release), then mean and deviation."""
    header = [
        "run",
        "seed",
        "score",
        *(f"{name} {task.headline}" for name, task in tasks.items()),
        "parameters",
    ]

    def row(name: str, seed: int | None, values: Mapping[str, Any], share: str | None) -> list[object]:
        of_tasks = values["metrics"]["release"]
        headlines = [of_tasks[task][record.headline] for task, record in tasks.items()]
        return [name, seed, values["score"], *headlines, share]

    rows = [row(_run_name(run, summary), run["seed"], run, f"{_relative_parameters(run):.1%}") for run in runs]
    rows.append(row("mean", None, summary["mean"], None))
    if summary["std"]["score"] is not None:
        rows.append(row("std", None, summary["std"], None))
    return (
        f"{format_table(header, rows)}\n"
        "metrics in the release protocol; parameters: those used, relative to one network per task"
    )


def _run_name(run: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    return f"{run['exp_id']}{' (best)' if run['exp_id'] == summary['best']['exp_id'] else ''}"


def _relative_parameters(run: Mapping[str, Any]) -> float:
    return run["cost"]["relative_to_single_task"]["parameters"]


def metrics_table(evaluation: Evaluation, tasks: Mapping[str, Task]) -> str:
    """Every metric of every task, the two protocols side by side, and why a protocol has none."""
    rows = []
    for name, task in tasks.items():
        by_protocol = {protocol: evaluation.metrics[protocol][name] or {} for protocol in PROTOCOLS}
        for metric in dict.fromkeys(metric for values in by_protocol.values() for metric in values):
            row = [by_protocol[protocol].get(metric) for protocol in PROTOCOLS]
            better = "lower" if metric in task.lower_is_better else "higher"
            rows.append([name, metric, *row, task.units.get(metric, ""), better])
    table = format_table(["task", "metric", *PROTOCOLS, "unit", "better"], rows)
    reasons = [
        f"no {protocol} metrics for {name}: {reason}"
        for name, task in tasks.items()
        for protocol, reason in task.missing_protocols.items()
    ]
    return "\n".join([table, *reasons])


def comparison_table(evaluations: Mapping[str, Evaluation], tasks: Mapping[str, Task]) -> str:
    """One row per predictor and protocol with each task's foremost metric, and which way is better."""
    arrows = {name: "(lower)" if task.headline in task.lower_is_better else "(higher)" for name, task in tasks.items()}
    header = ["", "protocol", *(f"{name} {task.headline} {arrows[name]}" for name, task in tasks.items())]
    rows = [
        [predictor, protocol]
        + [(evaluation.metrics[protocol][name] or {}).get(task.headline) for name, task in tasks.items()]
        for protocol in PROTOCOLS
        for predictor, evaluation in evaluations.items()
    ]
    return format_table(header, rows)


def cost_table(cost: Mapping[str, Any]) -> str:
    """Parameters and multiply-adds per task and together, and relative to one network per task."""
    relative = cost["relative_to_single_task"]
    rows = [_cost_row(f"{task} alone", values, None) for task, values in cost["per_task"].items()]
    rows.append(_cost_row("together", cost["together"], relative))
    rows.append(_cost_row("one network per task", cost["single_task_networks"], None))
    height, width = cost["input_size"]
    header = ["", "parameters (M)", "relative", f"multiply-adds (G) at {height}x{width}", "relative"]
    return format_table(header, rows)


def _cost_row(name: str, cost: Mapping[str, int], relative: Mapping[str, float] | None) -> list[object]:
    shares = {key: f"{value:.1%}" for key, value in relative.items()} if relative else {}
    millions, billions = round(cost["parameters"] / 1e6, 3), round(cost["multiply_adds"] / 1e9, 3)
    return [name, millions, shares.get("parameters"), billions, shares.get("multiply_adds")]
