"""What a finished phase leaves behind: results files, and the tables that the scripts print."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from envs.evaluation import Evaluation
from envs.headlines import are_alike, headlines_of
from envs.run import ScoredEvaluation
from envs.run_files import RunFiles
from envs.run_identity import fingerprint
from envs.tasks import PROTOCOLS, Task
from models.shared_paths import HardGates
from utils.config import PartialTrainSection, TrainingConfig
from utils.errors import UserError
from utils.files import read_json
from utils.tables import format_table


def arithmetic(settings: PartialTrainSection) -> dict[str, Any]:
    """What numbers were rounded to: results in lower precisions are not those of the same weights in float32."""
    return {"precision": settings.precision, "tf32": settings.tf32, "compile": settings.compile}


def test_result(
    gates: HardGates,
    evaluation: Evaluation,
    constant: Evaluation | None,
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    """What test.py writes of one architecture; metrics {protocol: {task: {metric: value} or None}}.

    `constant` is the evaluation of the constant predictor, if it was asked for.
    """
    return {
        "num_samples": evaluation.num_samples,
        "policy": gates,
        "metrics": evaluation.metrics,
        **({"constant_predictor": constant.metrics} if constant else {}),
        "cost": dict(cost),
    }


def retraining_result(
    exp_id: int,
    seed: int,
    config: TrainingConfig,
    gates: HardGates,
    best: ScoredEvaluation,
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    """What re-train.py writes of one architecture; metrics are those of its best evaluation while training."""
    return {
        "exp_id": exp_id,
        "seed": seed,
        "policy_iter": config.train.policy_iter,
        "configuration": fingerprint(config),
        "arithmetic": arithmetic(config.train),
        "iterations": config.train.retrain_iters,
        "gates": gates,
        "score": best.score,
        "best_iteration": best.iteration,
        "num_samples": best.evaluation.num_samples,
        "metrics": best.evaluation.metrics,
        "cost": dict(cost),
    }


def collect_retraining(
    files: RunFiles, architectures: Mapping[int, HardGates], config: TrainingConfig
) -> list[dict[str, Any]]:
    """The results of those architectures that are retrained so far, in the order of their exp_ids.

    A run of other gates, another seed or another configuration, left in the same folder, does not count.

    Args:
        architectures: exp_id -> the gates that policy and seed give now.

    Raises:
        UserError: a results file is damaged.
    """
    paths = [files.retrained(exp_id) for exp_id in sorted(architectures)]
    keys = {"exp_id", "seed", "policy_iter", "configuration", "iterations", "gates", "score", "metrics", "cost"}
    runs = [read_result(path, keys) for path in paths if path.is_file()]
    of_config = (config.train.policy_iter, fingerprint(config))
    return [
        run
        for run in runs
        if run["gates"] == architectures[run["exp_id"]]
        and run["seed"] == config.seed[run["exp_id"]]
        and (run["policy_iter"], run["configuration"]) == of_config
    ]


def read_result(path: Path, keys: set[str]) -> dict[str, Any]:
    """One results file of re-train.py, which must have at least the named keys.

    Raises:
        UserError: the file is missing, or not one of them.
    """
    result = read_json(path)
    if not isinstance(result, dict) or not keys <= result.keys():
        raise UserError(
            f"{path} is not a results file of re-train.py, which has {', '.join(sorted(keys))}; run it again."
        )
    return result


def best_retrained(files: RunFiles) -> dict[int, int]:
    """{exp_id: seed} of the best run in `retrain.json`.

    Raises:
        UserError: the file is missing, or does not say which run is best.
    """
    path = files.summary
    if not path.is_file():
        raise UserError(f"--best: {path} does not exist; run re-train.py first.")
    best = read_result(path, {"best"})["best"]
    if not isinstance(best, dict) or not all(isinstance(best.get(key), int) for key in ("exp_id", "seed")):
        raise UserError(f"{path} does not say which run is best; run re-train.py again.")
    return {best["exp_id"]: best["seed"]}


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
    """One row per architecture with score and foremost metrics (release), then mean and sample deviation."""
    headlines = headlines_of(tasks)
    numbers = [[run["score"], *(headline.value(run["metrics"]["release"]) for headline in headlines)] for run in runs]
    rows = [
        [_run_name(run, summary), run["seed"], *row, f"{_relative_parameters(run):.1%}"]
        for run, row in zip(runs, numbers, strict=True)
    ]
    statistics = {"mean": mean} | ({"std": stdev} if len(runs) > 1 else {})
    for name, statistic in statistics.items():
        columns = zip(*numbers, strict=True)
        rows.append([name, None, *(None if None in column else statistic(column) for column in columns), None])
    header = ["run", "seed", "score", *(headline.title for headline in headlines), "parameters"]
    return (
        f"{format_table(header, rows)}\n"
        "metrics in the release protocol; parameters: those used, relative to one network per task"
    )


def _run_name(run: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    return f"{run['exp_id']}{' (best)' if run['exp_id'] == summary['best']['exp_id'] else ''}"


def _relative_parameters(run: Mapping[str, Any]) -> float:
    return run["cost"]["together"]["relative_to_single_task"]["parameters"]


def metrics_table(evaluation: Evaluation, tasks: Mapping[str, Task]) -> str:
    """Every metric of every task, the two protocols side by side, and why a protocol has none."""
    rows = []
    for name, task in tasks.items():
        by_protocol = {protocol: evaluation.metrics[protocol][name] or {} for protocol in PROTOCOLS}
        for metric in dict.fromkeys(metric for values in by_protocol.values() for metric in values):
            row = [by_protocol[protocol].get(metric) for protocol in PROTOCOLS]
            better = "lower" if metric in task.lower_is_better else "higher"
            rows.append([name, metric, *row, task.units.get(metric, ""), better])
    if are_alike(tasks):
        for headline in headlines_of(tasks)[-1:]:
            values = [headline.value(evaluation.metrics[protocol]) for protocol in PROTOCOLS]
            rows.append(["all", headline.title, *values, "", "lower" if headline.lower_is_better else "higher"])
    table = format_table(["task", "metric", *PROTOCOLS, "unit", "better"], rows)
    reasons = [
        f"no {protocol} metrics for {name}: {reason}"
        for name, task in tasks.items()
        for protocol, reason in task.missing_protocols.items()
    ]
    return "\n".join([table, *reasons])


def comparison_table(evaluations: Mapping[str, Evaluation], tasks: Mapping[str, Task]) -> str:
    """One row per predictor and protocol with the foremost metrics, and which way is better."""
    headlines = headlines_of(tasks)
    titles = [f"{headline.title} ({'lower' if headline.lower_is_better else 'higher'})" for headline in headlines]
    rows = [
        [predictor, protocol, *(headline.value(evaluation.metrics[protocol]) for headline in headlines)]
        for protocol in PROTOCOLS
        for predictor, evaluation in evaluations.items()
    ]
    return format_table(["", "protocol", *titles], rows)


def cost_table(cost: Mapping[str, Any]) -> str:
    """Parameters, multiply-adds and time per task and together, each relative to single-task networks."""
    rows = [_cost_row(f"{task} alone", values) for task, values in cost["per_task"].items()]
    rows.append(_cost_row("together", cost["together"]))
    rows.append(_cost_row("one network per task", cost["single_task_networks"]))
    size = "x".join(map(str, cost["input_size"]))
    header = ["", "parameters (M)", "relative", "multiply-adds (G)", "relative", "seconds"]
    return (
        f"{format_table(header, rows)}\n"
        f"one input of {size} on {cost['device']}; relative to full networks, one per task"
    )


def _cost_row(name: str, cost: Mapping[str, Any]) -> list[object]:
    relative = {key: f"{value:.1%}" for key, value in cost.get("relative_to_single_task", {}).items()}
    return [
        name,
        cost["parameters"] / 1e6,
        relative.get("parameters"),
        cost["multiply_adds"] / 1e9,
        relative.get("multiply_adds"),
        cost["seconds"],
    ]
