"""What a run leaves behind: results files, their summary, and tables."""

import json
from pathlib import Path

import numpy as np
import pytest

from envs import results
from envs.evaluation import Evaluation
from envs.run import ScoredEvaluation
from envs.run_files import RunFiles
from envs.task_sets import build_tasks
from models.shared_paths import HardGates
from utils.config import load_config
from utils.errors import UserError
from utils.files import write_json
from utils.tables import format_shares, format_table

TASKS = build_tasks("NYU_v2", ["seg", "sn"], [40, 3])
GATES = {"seg": [1, 0, 1], "sn": [1, 1, 0]}
ROOMS = Path(__file__).parents[1] / "yamls" / "demo" / "rooms.yml"
CONFIG = load_config(ROOMS, [f"seed={list(range(40, 60))}"])
COST = {
    "input_size": [480, 640],
    "device": "CPU, 2 threads",
    "per_task": {
        "seg": {
            "parameters": 21_400_000,
            "multiply_adds": 91_234_000_000,
            "seconds": 0.5,
            "relative_to_single_task": {"parameters": 0.75, "multiply_adds": 0.8},
        },
        "sn": {
            "parameters": 20_000_000,
            "multiply_adds": 80_000_000_000,
            "seconds": 0.4,
            "relative_to_single_task": {"parameters": 0.7, "multiply_adds": 0.9},
        },
    },
    "together": {
        "parameters": 30_000_000,
        "multiply_adds": 120_000_000_000,
        "seconds": 0.625,
        "relative_to_single_task": {"parameters": 0.5, "multiply_adds": 2 / 3},
    },
    "single_task_networks": {"parameters": 60_000_000, "multiply_adds": 180_000_000_000, "seconds": 1.25},
}


def an_evaluation(miou: float | None = 0.25, angle: float = 17.5) -> Evaluation:
    metrics = {
        "release": {
            "seg": {"mIoU": miou, "Pixel Acc": 0.5, "err": 1.5},
            "sn": {"Angle Mean": angle, "Angle 11.25": 35.0},
        },
        "standard": {"seg": {"mIoU": 0.125, "Pixel Acc": 0.5, "err": 1.75}, "sn": None},
    }
    return Evaluation(metrics, num_samples=4)


def a_run(exp_id: int, score: float, gates: HardGates = GATES, **values: float | None) -> dict:
    """A result of re-train.py as its file gives it back."""
    best = ScoredEvaluation(an_evaluation(**values), score, iteration=400 + exp_id)
    result = results.retraining_result(exp_id, CONFIG.seed[exp_id], CONFIG, gates, best, COST)
    return json.loads(json.dumps(result))


# Results files


def test_a_test_result_has_all_that_its_file_promises() -> None:
    result = results.test_result(GATES, an_evaluation(), None, COST)
    assert result == {
        "num_samples": 4,
        "policy": GATES,
        "metrics": an_evaluation().metrics,
        "cost": COST,
    }


def test_a_test_result_has_the_constant_predictor_where_there_is_one() -> None:
    constant = an_evaluation(miou=0.01)
    result = results.test_result(GATES, an_evaluation(), constant, COST)
    assert result["constant_predictor"] == constant.metrics
    assert result["metrics"] == an_evaluation().metrics


def test_results_in_lower_precisions_say_so() -> None:
    config = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"precision": "bf16"})})
    best = ScoredEvaluation(an_evaluation(), 1.5, iteration=400)
    result = results.retraining_result(3, 43, config, GATES, best, COST)
    assert result["arithmetic"] == {"precision": "bf16", "tf32": False, "compile": False}


def test_a_retraining_result_names_its_run() -> None:
    result = a_run(3, score=1.5)
    assert {key: result[key] for key in ("exp_id", "seed", "policy_iter", "gates", "score")} == {
        "exp_id": 3,
        "seed": 43,
        "policy_iter": "best",
        "gates": GATES,
        "score": 1.5,
    }
    assert result["best_iteration"] == 403
    assert result["num_samples"] == 4
    assert result["metrics"] == an_evaluation().metrics
    assert result["cost"] == COST


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    return RunFiles(tmp_path / "logs", tmp_path / "checkpoints", tmp_path / "results")


def test_retraining_is_collected_in_the_order_of_the_exp_ids(files: RunFiles) -> None:
    for exp_id in (10, 2, 0):
        write_json(files.retrained(exp_id), a_run(exp_id, 1.0))
    write_json(files.summary, {"runs": []})
    write_json(files.results / "policy.json", {})
    collected = results.collect_retraining(files, dict.fromkeys((10, 1, 2, 0), GATES), CONFIG)
    assert [run["exp_id"] for run in collected] == [0, 2, 10]
    assert collected[1] == a_run(2, 1.0)
    assert [run["exp_id"] for run in results.collect_retraining(files, {2: GATES}, CONFIG)] == [2]
    assert results.collect_retraining(files, {}, CONFIG) == []


def test_runs_of_gates_that_the_policy_no_longer_gives_do_not_count(files: RunFiles) -> None:
    other = {"seg": [1, 0, 1], "sn": [1, 0, 0]}
    write_json(files.retrained(0), a_run(0, 1.0))
    write_json(files.retrained(1), a_run(1, 1.0, gates=other))
    assert [run["exp_id"] for run in results.collect_retraining(files, {0: GATES, 1: GATES}, CONFIG)] == [0]
    assert [run["exp_id"] for run in results.collect_retraining(files, {0: other, 1: other}, CONFIG)] == [1]


@pytest.mark.parametrize(
    ("values", "counts"), [("train.lr=0.5", True), ("train.batch_size=3", False), ("train.policy_iter=latest", False)]
)
def test_runs_of_another_configuration_do_not_count(files: RunFiles, values: str, counts: bool) -> None:
    write_json(files.retrained(0), a_run(0, 1.0))
    config = CONFIG.model_copy(update={"train": load_config(ROOMS, [values]).train})
    assert len(results.collect_retraining(files, {0: GATES}, config)) == counts
    other_seed = CONFIG.model_copy(update={"seed": (7,)})
    assert results.collect_retraining(files, {0: GATES}, other_seed) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}"])
def test_a_damaged_result_is_named(files: RunFiles, text: str) -> None:
    files.make_folders()
    files.retrained(4).write_text(text)
    with pytest.raises(UserError, match=r"retrain004\.json .* again"):
        results.collect_retraining(files, {4: GATES}, CONFIG)


def test_the_best_retrained_run_is_read_from_the_summary_with_its_seed(files: RunFiles) -> None:
    runs = [a_run(4, 1.0), a_run(7, 2.0), a_run(8, 1.5)]
    write_json(files.summary, {"runs": runs, **results.summarise(runs)})
    assert results.best_retrained(files) == {7: 47}


def test_without_a_summary_there_is_no_best_run(files: RunFiles) -> None:
    with pytest.raises(UserError, match=r"^--best: .*retrain\.json does not exist; run re-train\.py first"):
        results.best_retrained(files)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"best": null}'])
def test_a_damaged_summary_has_no_best_run(files: RunFiles, text: str) -> None:
    files.make_folders()
    files.summary.write_text(text)
    with pytest.raises(UserError, match=r"retrain\.json .*again"):
        results.best_retrained(files)


# Summary


def test_summary_has_best_mean_and_sample_deviation() -> None:
    runs = [
        a_run(0, 1.0, miou=0.2, angle=20.0),
        a_run(1, 3.0, miou=0.5, angle=10.0),
        a_run(2, 2.0, miou=0.5, angle=15.0),
    ]
    summary = results.summarise(runs)
    assert summary["best"] == {"exp_id": 1, "seed": 41, "score": 3.0}
    assert summary["mean"]["score"] == pytest.approx(2.0)
    assert summary["std"]["score"] == pytest.approx(1.0)  # sqrt((1 + 0 + 1) / 2)
    release = [run["metrics"]["release"] for run in runs]
    for task, metric in [("seg", "mIoU"), ("seg", "err"), ("sn", "Angle Mean")]:
        values = [of_tasks[task][metric] for of_tasks in release]
        assert summary["mean"]["metrics"]["release"][task][metric] == pytest.approx(np.mean(values))
        assert summary["std"]["metrics"]["release"][task][metric] == pytest.approx(np.std(values, ddof=1))
    assert summary["mean"]["metrics"]["standard"]["sn"] is None
    assert summary["std"]["metrics"]["standard"]["sn"] is None


@pytest.mark.parametrize("first", [0.25, None])
def test_a_value_that_a_run_lacks_has_no_mean(first: float | None) -> None:
    second = None if first else 0.25
    summary = results.summarise([a_run(0, 1.0, miou=first), a_run(1, 2.0, miou=second)])
    assert summary["mean"]["metrics"]["release"]["seg"]["mIoU"] is None
    assert summary["std"]["metrics"]["release"]["seg"]["mIoU"] is None
    assert summary["mean"]["metrics"]["release"]["seg"]["err"] == pytest.approx(1.5)


def test_a_single_run_has_no_deviation() -> None:
    summary = results.summarise([a_run(5, 1.25)])
    assert summary["best"]["exp_id"] == 5
    assert summary["mean"] == {"score": 1.25, "metrics": an_evaluation().metrics}
    assert summary["std"]["score"] is None
    assert set(summary["std"]["metrics"]["release"]["seg"].values()) == {None}


# Tables of results


def cells(table: str, first: str) -> list[str]:
    """The cells of the first row that begins with `first`; columns stand two spaces apart or more."""
    row = next(line for line in table.splitlines() if line.strip().startswith(first))
    return [cell.strip() for cell in row.split("  ") if cell.strip()]


def test_retraining_table_has_a_row_per_run_then_mean_and_deviation() -> None:
    runs = [a_run(0, 1.0, miou=0.2), a_run(1, 2.0, miou=0.4)]
    table = results.retraining_table(runs, results.summarise(runs), TASKS)
    assert cells(table, "run") == ["run", "seed", "score", "seg mIoU", "sn Angle Mean", "parameters"]
    assert cells(table, "0") == ["0", "40", "1", "0.2", "17.50", "50.0%"]
    assert cells(table, "1 (best)") == ["1 (best)", "41", "2", "0.4", "17.50", "50.0%"]
    assert cells(table, "mean") == ["mean", "-", "1.5", "0.3", "17.50", "-"]
    assert cells(table, "std") == ["std", "-", "0.7071", "0.1414", "0", "-"]
    assert "release protocol" in table


def test_retraining_table_of_one_run_has_no_deviation() -> None:
    runs = [a_run(0, 1.0)]
    table = results.retraining_table(runs, results.summarise(runs), TASKS)
    assert "mean" in table
    assert "std" not in table


def test_metrics_table_puts_the_protocols_side_by_side_and_says_what_is_missing() -> None:
    table = results.metrics_table(an_evaluation(miou=None), TASKS)
    assert cells(table, "task") == ["task", "metric", "release", "standard", "unit", "better"]
    assert cells(table, "seg   mIoU") == ["seg", "mIoU", "-", "0.125", "higher"]
    assert cells(table, "seg   err") == ["seg", "err", "1.5", "1.75", "nats", "lower"]
    assert cells(table, "sn    Angle Mean") == ["sn", "Angle Mean", "17.50", "-", "degrees", "lower"]
    assert cells(table, "sn    Angle 11.25") == ["sn", "Angle 11.25", "35.00", "-", "%", "higher"]
    assert "no standard metrics for sn: trained on raw" in table


def test_comparison_table_has_every_predictor_under_every_protocol() -> None:
    evaluations = {"network": an_evaluation(), "constant": an_evaluation(miou=None, angle=30.0)}
    table = results.comparison_table(evaluations, TASKS)
    assert cells(table, "protocol") == ["protocol", "seg mIoU (higher)", "sn Angle Mean (lower)"]
    assert [line.split() for line in table.splitlines()[2:]] == [
        ["network", "release", "0.25", "17.50"],
        ["constant", "release", "-", "30.00"],
        ["network", "standard", "0.125", "-"],
        ["constant", "standard", "0.125", "-"],
    ]


def test_cost_table_names_size_units_device_and_shares() -> None:
    table = results.cost_table(COST)
    assert "480x640 on CPU, 2 threads" in table
    assert cells(table, "seg alone") == ["seg alone", "21.40", "75.0%", "91.23", "80.0%", "0.5"]
    assert cells(table, "sn alone") == ["sn alone", "20.00", "70.0%", "80.00", "90.0%", "0.4"]
    assert cells(table, "together") == ["together", "30.00", "50.0%", "120.00", "66.7%", "0.625"]
    assert cells(table, "one network per task") == ["one network per task", "60.00", "-", "180.00", "-", "1.25"]
    header = table.splitlines()[0]
    assert [header.count(name) for name in ("parameters (M)", "multiply-adds (G)", "seconds")] == [1, 1, 1]


# Plain tables


def test_table_aligns_numbers_right_and_text_left() -> None:
    table = format_table(["name", "value"], [["a", 1.5], ["longer", None], ["b", 12345.678]])
    assert table.splitlines() == [
        "name       value",
        "------  --------",
        "a            1.5",
        "longer         -",
        "b       12345.68",
    ]


def test_table_without_rows_is_its_header() -> None:
    assert format_table(["a", "bc"], []).splitlines()[0].split() == ["a", "bc"]


def test_shares_are_shaded_by_value_with_their_mean() -> None:
    assert format_shares({"seg": [0.0, 0.5, 1.0], "depth": [1, 1, 0]}).splitlines() == [
        "seg    · ▄ █   mean 0.50",
        "depth  █ █ ·   mean 0.67",
    ]
