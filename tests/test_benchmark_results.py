"""The benchmark's results: promises that find their figures, tables, and what can be asked for on the command line."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import growth, report, run
from benchmarks.loading import AS_RELEASED, AS_RENDERED, CACHE, FILES
from benchmarks.promises import PROMISES, Figure, Promise

# Promises and tables


def test_promises_are_kept_on_their_side_of_the_bound() -> None:
    at_least = Promise("speed", 2.0, lambda results: None)
    at_most = Promise("memory", 0.6, lambda results: None, at_most=True)
    assert [at_least.is_kept_by(Figure(value)) for value in (1.9, 2.0, 2.1)] == [False, True, True]
    assert [at_most.is_kept_by(Figure(value)) for value in (0.5, 0.6, 0.7)] == [True, True, False]


def test_nothing_is_promised_of_what_was_not_measured() -> None:
    for device, promises in PROMISES.items():
        table = report.promise_table({"machine": {"device": device}})
        assert table.count("not measured") == len(promises)


def timed(phase: str, implementation: str, speed: float) -> dict[str, Any]:
    ratio = {"median": speed, "low": speed - 0.1, "high": speed + 0.1}
    return {"phase": phase, "implementation": implementation, "times_faster": ratio}


def test_every_promise_finds_its_own_figure() -> None:
    steps = [
        timed("test", "baseline", 1.0),
        timed("test", "baseline, tf32", 9.0),
        timed("test", "fp32", 1.61),
        timed("test", "bf16", 4.1),
        timed("retraining", "fp32", 1.26),
        timed("retraining", "fp32, checkpointing", 1.1),
        timed("retraining", "fp32, least memory", 0.9),
        timed("retraining", "bf16", 2.5),
        timed("heads", "bf16", 9.0) | {"flops_per_second": 7e9, "rate": "bf16"},
    ]
    averages = [timed("weights", "baseline", 1.0), timed("weights", "fp32", 1.31), timed("policy", "fp32", 1.19)]
    peaks = [
        timed("retraining", implementation, 1.0) | {"images": images, "of_baseline": {"own": own, "growth": growth}}
        for implementation, images, own, growth in (
            ("baseline", 2, 1.0, 1.0),
            ("fp32, checkpointing", 2, 0.76, 0.77),
            ("fp32, least memory", 2, 0.66, 0.57),
            ("fp32, least memory", 4, 0.52, 0.42),
        )
    ]
    batches = [
        {"images": images, **timed("", "", speed), "differences": {"two": difference}}
        for images, speed, difference in ((2, 1.3, 1e-6), (4, 1.7, 2e-6), (8, 1.8, 3e-5))
    ]
    changes = [{"differences": {"fp32": 0.0, "bf16": difference}} for difference in (0.001, 0.004, 0.002)]
    results = {
        "machine": {"device": "cpu", "matmul": {"fp32": 1e9, "bf16": 1e10}},
        "headline": {"steps": steps, "averages": averages},
        "memory": {"work": {"batch_size": 2}, "peaks": peaks},
        "loading": {
            "samples": [
                timed("", "", speed) | {"name": name, "pictures": pictures}
                for name, pictures, speed in (
                    (FILES, AS_RELEASED, 2.1),
                    (FILES, AS_RENDERED, 2.6),
                    (CACHE, AS_RELEASED, 8.1),
                    (CACHE, AS_RENDERED, 7.1),
                )
            ]
        },
        "growth": {"tasks": {"series": {"baseline": [[1.0], [9.0], [20.0]], growth.ONE_POLICY: [[2.0], [9.0], [2.1]]}}},
        "metrics": {"metrics": changes},
        "processes": {"work": {"batch_size": 2}, "batches": batches},
    }
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in report.promise_table(results).splitlines()[2:]]
    assert [(row[0], row[2].split(" (")[0], row[3]) for row in rows] == [
        ("fp32, test", "1.61x", "yes"),
        ("fp32, retraining step", "1.26x", "yes"),
        ("fp32, weight steps of a curriculum", "1.31x", "yes"),
        ("fp32, policy steps of a curriculum", "1.19x", "NO"),
        ("fp32, least memory, retraining step", "0.9x", "NO"),
        ("fp32, least memory, peak of the process's own memory", "0.66x", "NO"),
        ("fp32, least memory, peak of what the work adds", "0.57x", "yes"),
        ("bf16, test", "4.1x", "yes"),
        ("bf16, retraining step", "2.5x", "yes"),
        ("a training sample from files, as released", "2.1x", "NO"),
        ("a training sample from files, as rendered", "2.6x", "yes"),
        ("a training sample from packed cache, as released", "8.1x", "yes"),
        ("a training sample from packed cache, as rendered", "7.1x", "NO"),
        ("20 tasks of one policy, cost of the backbone", "1.05x", "yes"),
        ("bf16, change of a metric", "0.4 %", "yes"),
        ("two processes of one thread, each with the headline's images, images per second", "1.7x", "yes"),
        ("two processes, difference of a loss", "3e-05", "NO"),
    ]
    assert "| 1.61x (1.51 to 1.71) |" in report.promise_table(results)
    of_gpu = report.promise_table(results | {"machine": results["machine"] | {"device": "cuda"}})
    assert "| fastest test | at least 5x | 4.1x (4 to 4.2) | NO |" in of_gpu
    assert "| bf16, share of the matmul rate in the heads | at least 0.6x | 0.7x | yes |" in of_gpu


def test_a_whole_curriculum_wins_over_an_interpolated_one() -> None:
    results = {
        "machine": {"device": "cpu"},
        "headline": {"averages": [timed("weights", "fp32", 1.5)]},
        "curriculum": {"averages": [timed("weights", "fp32", 1.25)]},
    }
    assert "| fp32, weight steps of a curriculum | at least 1.3x | 1.25x (" in report.promise_table(results)


def test_tables_are_markdown() -> None:
    table = report.markdown_table(["name", "seconds"], [["a", 0.012345], ["b", 1234.5], ["c", None]])
    assert table.splitlines() == ["| name | seconds |", "| --- | --- |", "| a | 0.0123 |", "| b | 1234 |", "| c | - |"]


# What is asked for


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "31"], "--size 31: the networks need images of 32x32 at least."),
        (["--out", "results.txt"], "--out results.txt: results are JSON"),
        (["--out", "/dev/null/results.json"], "error: /dev/null: "),
        (["--out", "folder.json"], "--out folder.json is a folder: choose the name of a file"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_measured(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder.json").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "describe_machine", lambda settings: pytest.fail("measured"))
    with pytest.raises(SystemExit) as stop:
        run.main(["--tiny", *arguments])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", '{"machine": 1}', '{"format": 1, "machine": {}}'])
def test_a_report_of_something_else_is_one_sentence(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text(content)
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path / "other.json")])
    with pytest.raises(SystemExit) as stop:
        report.main()
    assert stop.value.code == 2
    assert "does not hold results of this version of benchmarks.run" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        run.main(["--device", "cuda"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: --device cuda: PyTorch finds no CUDA device here; choose cpu.\n"
