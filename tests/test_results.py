"""What a run leaves behind and says: results and their summary, tables, logs, devices, errors."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from envs import results
from envs.evaluation import Evaluation
from envs.run import ScoredEvaluation
from envs.tasks import build_tasks
from utils.devices import choose_device, derived_seed, seed_everything, to_device
from utils.errors import UserError, exit_on_user_error
from utils.files import write_json
from utils.logger import RunLogger, RunningMeans
from utils.progress import progress_bar
from utils.tables import format_shares, format_table

TASKS = build_tasks("NYU_v2", ["seg", "sn"], [40, 3])
GATES = {"seg": [1, 0, 1], "sn": [1, 1, 0]}
COST = {
    "input_size": [480, 640],
    "per_task": {
        "seg": {"parameters": 21_400_000, "multiply_adds": 91_234_000_000},
        "sn": {"parameters": 20_000_000, "multiply_adds": 80_000_000_000},
    },
    "together": {"parameters": 30_000_000, "multiply_adds": 120_000_000_000},
    "single_task_networks": {"parameters": 60_000_000, "multiply_adds": 180_000_000_000},
    "relative_to_single_task": {"parameters": 0.5, "multiply_adds": 2 / 3},
}


def an_evaluation(miou: float | None = 0.25, angle: float = 17.5) -> Evaluation:
    metrics = {
        "release": {
            "seg": {"mIoU": miou, "Pixel Acc": 0.5, "err": 1.5},
            "sn": {"Angle Mean": angle, "Angle 11.25": 35.0},
        },
        "standard": {"seg": {"mIoU": 0.125, "Pixel Acc": 0.5, "err": 1.75}, "sn": None},
    }
    return Evaluation(metrics, num_samples=4, seconds_per_image=0.25)


def a_run(exp_id: int, score: float, policy_iter: str = "best", **values: float | None) -> dict:
    """A result of re-train.py as its file gives it back."""
    best = ScoredEvaluation(an_evaluation(**values), score, iteration=400 + exp_id)
    result = results.retraining_result(exp_id, 40 + exp_id, policy_iter, GATES, best, COST)
    return json.loads(json.dumps(result))


# Results files


def test_a_test_result_has_all_that_its_file_promises() -> None:
    result = results.test_result(GATES, an_evaluation(), None, COST)
    assert result == {
        "num_samples": 4,
        "policy": GATES,
        "metrics": an_evaluation().metrics,
        "cost": {**COST, "seconds_per_image": 0.25},
    }


def test_a_test_result_has_the_constant_predictor_where_there_is_one() -> None:
    constant = an_evaluation(miou=0.01)
    result = results.test_result(GATES, an_evaluation(), constant, COST)
    assert result["constant_predictor"] == constant.metrics
    assert result["metrics"] == an_evaluation().metrics


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
    assert result["cost"]["seconds_per_image"] == 0.25


def test_retraining_is_collected_by_policy_in_the_order_of_the_exp_ids(tmp_path: Path) -> None:
    for exp_id in (10, 2, 0):
        write_json(tmp_path / f"retrain{exp_id:03d}.json", a_run(exp_id, 1.0))
    write_json(tmp_path / "retrain001.json", a_run(1, 1.0, policy_iter="latest"))
    write_json(tmp_path / "retrain.json", {"runs": []})
    write_json(tmp_path / "policy.json", {})
    assert [run["exp_id"] for run in results.collect_retraining(tmp_path, "best")] == [0, 2, 10]
    assert [run["exp_id"] for run in results.collect_retraining(tmp_path, "latest")] == [1]


def test_the_best_retrained_run_is_read_from_the_summary(tmp_path: Path) -> None:
    runs = [a_run(4, 1.0), a_run(7, 2.0)]
    write_json(tmp_path / "retrain.json", {"runs": runs, **results.summarise(runs)})
    assert results.best_retrained(tmp_path) == 7


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"best": null}', '{"best": {"seed": 88}}'])
def test_without_a_summary_there_is_no_best_run(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "retrain.json").write_text(text)
    with pytest.raises(UserError, match=r"retrain\.json does not say"):
        results.best_retrained(tmp_path)


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


def test_cost_table_names_size_units_and_shares() -> None:
    table = results.cost_table(COST)
    assert "480x640" in table
    assert cells(table, "seg alone")[:2] == ["seg alone", "21.40"]
    assert "91.23" in cells(table, "seg alone")
    for cell in ("30.00", "120.00", "50.0%", "66.7%"):
        assert cell in cells(table, "together")
    for cell in ("60.00", "180.00"):
        assert cell in cells(table, "one network per task")


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


# Logs


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
    means.update({"seg": torch.tensor(1.0), "total": torch.tensor(10.0)})
    means.update({"seg": torch.tensor(2.0), "total": torch.tensor(20.0), "sharing": torch.tensor(7.0)})
    assert means.pop() == {"seg": 1.5, "total": 15.0, "sharing": 7.0}
    means.update({"seg": torch.tensor(4.0)})
    assert means.pop() == {"seg": 4.0}
    assert means.pop() == {}


def test_a_progress_bar_hands_its_items_on() -> None:
    with progress_bar(range(3, 6), "weights", total=10, start=2) as bar:
        assert (bar.total, bar.n, list(bar)) == (10, 2, [3, 4, 5])


# Devices


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: f"Model {gpu}")


@pytest.mark.parametrize("gpus", [[0], [3], [0, 1]])
def test_without_cuda_every_choice_is_the_cpu_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, gpus: list[int]
) -> None:
    pretend_gpus(monkeypatch, 0)
    device, line = choose_device(gpus)
    assert device == torch.device("cpu")
    assert "no CUDA device" in line
    assert "\n" not in line


def test_minus_one_asks_for_the_cpu_even_beside_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2)
    device, line = choose_device([-1])
    assert device == torch.device("cpu")
    assert "--gpus -1" in line


def test_the_first_gpu_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 3)
    assert choose_device([1]) == (torch.device("cuda", 1), "device: GPU 1, Model 1")
    device, line = choose_device([2, 0])
    assert device == torch.device("cuda", 2)
    assert "0 stay free" in line


@pytest.mark.parametrize("gpus", [[2], [0, 7], [-1, 0], [-2]])
def test_gpus_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch, gpus: list[int]) -> None:
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(UserError, match="GPUs 0 to 1"):
        choose_device(gpus)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seed_starts_every_generator() -> None:
    seed_everything(88)
    first, second = draws(), draws()
    seed_everything(88)
    assert draws() == first
    seed_everything(45)
    for number, other in zip(draws(), first, strict=True):
        assert number != other
    assert first != second


def test_derived_seeds_belong_to_their_numbers() -> None:
    seeds = {(seed, iteration): derived_seed(seed, iteration) for seed in range(20) for iteration in range(20)}
    assert len(set(seeds.values())) == 400
    assert all(0 <= seed < 2**32 for seed in seeds.values())
    assert seeds[3, 7] == derived_seed(3, 7)


def test_a_batch_moves_to_the_device_with_its_names() -> None:
    batch = to_device({"img": torch.ones(2), "name": ["a", "b"]}, torch.device("meta"))
    assert batch["img"].device.type == "meta"
    assert batch["name"] == ["a", "b"]


# Errors


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
