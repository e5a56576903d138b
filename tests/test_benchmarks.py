"""The benchmark: it compares the same work, counts and averages rightly, and says what it has found."""

import json
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import growth, processes, report, run, suites
from benchmarks.agreement import agreements
from benchmarks.baseline import TaskByTaskNet
from benchmarks.curriculum import curriculum_averages, turning_points
from benchmarks.machine import at_its_best, slow_rates
from benchmarks.measure import Stopwatch, count_flops, interleave, settle, times_faster
from benchmarks.memory import peak_memory, process_memory
from benchmarks.phases import Bench, Phase
from benchmarks.picture import draw_growth
from benchmarks.settings import Settings
from benchmarks.variants import BASELINE, FP32, measured_variants
from benchmarks.work import HEADLINE, OTHERS, Work, paper_work
from envs.steps import task_losses
from envs.updates import NotFinite, weighted_sum
from models.convolutions import SubsamplingConv
from models.shared_paths import all_blocks
from tests.parity_inputs import policies
from utils.errors import UserError

CPU = torch.device("cpu")
TINY = Settings(CPU, repeats=1, threads=1, batch_size=2, size=32, tiny=True)


@pytest.fixture(scope="module")
def work() -> Work:
    return paper_work(HEADLINE, TINY)


@pytest.fixture(scope="module")
def headline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of results of a tiny headline, with two tasks and 8 blocks: three seconds."""
    out = tmp_path_factory.mktemp("results") / "new" / "headline.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suites, "HEADLINE", "nyu_v2_2task")
        run.main(["--tiny", "--only", "headline", "--repeats", "1", "--threads", "1", "--out", str(out)])
    return out


def steps_of(results: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(title, implementation) -> its record."""
    steps = json.loads(results.read_text())["headline"]["steps"]
    return {(step["title"], step["implementation"]): step for step in steps}


@pytest.fixture
def benches(work: Work) -> dict[str, Bench]:
    """The baseline and ours, with the same weights."""
    return {way.name: Bench(work, way, CPU) for way in (BASELINE, FP32)}


# The work


def test_the_gates_of_the_headline_are_the_promised_ones(work: Work) -> None:
    assert list(work.gates()) == ["seg", "sn", "depth"]
    assert list(work.gates().values()) == policies(7, 3, 16)


@pytest.mark.parametrize("configuration", [HEADLINE, *OTHERS])
def test_every_target_is_one_that_its_loss_can_learn_from(configuration: str) -> None:
    work = paper_work(configuration, TINY)
    batch = work.batch(CPU)
    assert batch["img"].shape == (2, 3, 32, 32)
    predictions = {name: torch.randn(2, task.num_channels, 5, 5) for name, task in work.tasks.items()}
    losses = task_losses(predictions, batch, work.tasks)
    assert all(0 < loss.item() < 20 for loss in losses.values())
    if "sn" in work.tasks:
        torch.testing.assert_close(batch["normal"].norm(dim=1), torch.ones(2, 32, 32))
    classes = batch["seg"]
    assert (classes.min().item(), classes.max().item()) == (0, work.tasks["seg"].num_channels - 1)


# The baseline


def test_the_baseline_has_our_weights_in_the_order_of_their_axes(benches: dict[str, Bench]) -> None:
    baseline, ours = (bench.net for bench in benches.values())
    torch.testing.assert_close(dict(baseline.state_dict()), dict(ours.state_dict()), rtol=0, atol=0)
    assert all(parameter.stride() == torch.empty(parameter.shape).stride() for parameter in baseline.parameters())
    assert any(not parameter.is_contiguous() for parameter in ours.parameters())


def test_the_baseline_has_no_faster_convolutions(benches: dict[str, Bench]) -> None:
    baseline = benches[BASELINE.name].net
    convolutions = {type(module) for module in baseline.modules() if isinstance(module, nn.Conv2d)}
    assert convolutions == {nn.Conv2d, SubsamplingConv}


def test_the_baseline_computes_and_learns_what_ours_does(benches: dict[str, Bench]) -> None:
    gradients = []
    for bench in benches.values():
        bench.net.eval()  # without dropout, which differs
        losses = task_losses(bench.net(bench.batch["img"], bench.work.gates()), bench.batch, bench.work.tasks)
        weighted_sum(losses, bench.work.loss_weights).backward()
        gradients.append({name: p.grad for name, p in bench.net.named_parameters() if p.grad is not None})
    baseline, ours = gradients
    assert ours.keys() <= baseline.keys()
    for name, gradient in baseline.items():
        # Ours computes none for a block that nobody executes, the baseline one of zeros.
        torch.testing.assert_close(ours.get(name, torch.zeros(())).expand_as(gradient), gradient, rtol=1e-3, atol=1e-5)


def test_the_baseline_computes_everything_for_every_task(benches: dict[str, Bench], work: Work) -> None:
    bench = benches["baseline"]
    passes = dict.fromkeys(["stem", *range(work.num_blocks)], 0)

    def count(name: str | int) -> None:
        passes[name] += 1

    bench.net.backbone.stem.register_forward_hook(lambda *_: count("stem"))
    for index, block in enumerate(bench.net.backbone.blocks):
        block.residual.register_forward_hook(lambda *_, index=index: count(index))
    assert isinstance(bench.net, TaskByTaskNet)
    with torch.no_grad():
        bench.net(bench.batch["img"], work.gates())
    assert set(passes.values()) == {3}


def test_warm_up_is_one_pass_for_all_tasks_of_the_baseline(benches: dict[str, Bench], work: Work) -> None:
    bench = benches["baseline"]
    passes = []
    bench.net.backbone.stem.register_forward_hook(lambda *_: passes.append(1))
    image, everything = bench.batch["img"], all_blocks(work.tasks, work.num_blocks)
    with torch.no_grad():
        expected = benches["fp32"].net.eval()(image, everything)
        found = bench.net.eval()(image, everything)
        bench.net(image, {task: [torch.ones(()), *path[1:]] for task, path in everything.items()})
    assert len(passes) == 1 + 3, "gates that are learned are another matter"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_policy_steps_of_both_move_the_logits_and_know_no_gradient_of_weights(benches: dict[str, Bench]) -> None:
    for bench in benches.values():
        bench.net.zero_grad()
        before = {name: value.clone() for name, value in bench.net.named_parameters()}
        bench.prepare(Phase("policy", 16))()
        moved = {name for name, value in bench.net.named_parameters() if not torch.equal(value, before[name])}
        assert moved == {f"policy.logits.{task}" for task in bench.work.tasks}
        assert all(p.grad is None for part in (bench.net.backbone, bench.net.heads) for p in part.parameters())


def test_a_network_that_computes_something_else_is_found(benches: dict[str, Bench]) -> None:
    ours = benches["fp32"]
    assert max(agreements(benches["baseline"], {"fp32": ours})["fp32"].values()) < 1e-5
    with torch.no_grad():
        ours.net.backbone.blocks[5].residual.conv1.weight *= 1.1
    with pytest.raises(RuntimeError, match="fp32 computes something else than the baseline"):
        agreements(benches["baseline"], {"fp32": ours})


# Measuring


def test_a_product_and_a_sum_are_two_operations() -> None:
    layer, x = nn.Linear(5, 7), torch.ones(3, 5)
    assert count_flops(lambda: layer(x)) == 2 * 3 * 5 * 7
    assert count_flops(lambda: layer(x.requires_grad_()).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_contenders_take_turns() -> None:
    turns = []
    passes = {name: lambda name=name: turns.append(name) or {"total": float(len(turns))} for name in "ABC"}
    measured = interleave(passes, 2, "turns")
    assert turns == ["A", "B", "C", "A", "B", "C"]
    seconds = {name: [parts["total"] for parts in of_name] for name, of_name in measured.items()}
    assert seconds == {"A": [1.0, 4.0], "B": [2.0, 5.0], "C": [3.0, 6.0]}


def test_a_ratio_is_of_the_medians_and_its_spread_of_the_rounds() -> None:
    ratio = times_faster([1.0, 2.0, 4.0], than=[3.0, 8.0, 8.0])
    assert (ratio.median, ratio.low, ratio.high) == (4.0, 2.0, 4.0)


def test_steps_that_are_left_out_are_attempted_again() -> None:
    outcomes = iter([NotFinite(["gradient"]), NotFinite(["gradient"]), None])

    def attempt() -> str:
        if fault := next(outcomes):
            raise fault
        return "taken"

    assert settle(attempt) == "taken"
    with pytest.raises(StopIteration):
        next(outcomes)


def test_the_parts_of_a_pass_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 11.0, 13.0, 16.0, 20.0, 25.0])
    monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: next(moments))
    watch = Stopwatch(CPU)
    for part in ("forward", "backward", "optimiser", "backward"):
        watch.mark(part)
    assert watch.parts() == {"forward": 1.0, "backward": 6.0, "optimiser": 3.0, "total": 15.0}


def test_a_new_process_tells_its_own_peak(work: Work) -> None:
    hoard = torch.ones(2**28)  # 1 GB, which a fork would inherit
    measured = peak_memory(work, "fp32", Phase("retraining"), CPU, threads=1)
    assert 0 < measured["growth"] < 2e8
    assert measured["growth"] < measured["own"] < measured["peak"] < process_memory("VmRSS") - 0.75 * hoard.nbytes


# Averages


def test_turning_points_are_where_another_stage_begins(work: Work) -> None:
    assert turning_points(work) == [1, 3, 9, 13, 16]


def test_a_curriculum_is_averaged_over_every_number_of_open_blocks() -> None:
    def steps(implementation: str, seconds: dict[int, list[float]]) -> list[dict]:
        record = {"phase": "weights", "implementation": implementation}
        return [{**record, "num_open": number, "rounds": rounds} for number, rounds in seconds.items()]

    # Round 1: 1, 2, 3, 5, 7 seconds with 1 to 5 open blocks; round 2: twice as long.
    ours = steps("fp32", {5: [7.0, 14.0], 1: [1.0, 2.0], 3: [3.0, 6.0]})
    baseline = steps("baseline", {1: [9.0, 18.0], 3: [9.0, 18.0], 5: [9.0, 18.0]})
    others = [{"phase": "test", "implementation": "fp32", "num_open": None, "rounds": [0.0, 0.0]}]
    first, second = curriculum_averages([*baseline, *ours, *others])
    assert (first["implementation"], first["rounds"]) == ("baseline", [9.0, 18.0])
    assert second["rounds"] == pytest.approx([np.mean([1, 2, 3, 5, 7]), 2 * np.mean([1, 2, 3, 5, 7])])
    assert second["times_faster"]["median"] == pytest.approx(9 / 3.6)


# The whole


def test_results_hold_every_phase_of_every_implementation(headline: Path) -> None:
    steps = steps_of(headline)
    on_cpu = ["baseline", *(variant.name for variant in measured_variants(TINY))]
    testing = [name for name in on_cpu if "checkpointing" not in name and "memory" not in name]
    opening = [f"{kind}, {number} open" for kind in ("weights", "policy") for number in (1, 2, 4, 6, 8)]
    expected = {"test": testing, "retraining": on_cpu, "heads": testing}
    expected |= {title: ["baseline", "fp32"] for title in ("warm-up", *opening)}
    assert list(steps) == [(title, name) for title, names in expected.items() for name in names]
    for step in steps.values():
        parts = {"test": [], "heads": ["forward", "backward"]}.get(step["phase"], ["forward", "backward", "optimiser"])
        assert list(step["parts"]) == parts
        assert 0 <= sum(step["parts"].values()) <= step["median"] == step["least"] == step["rounds"][0]
        assert step["flops_per_second"] == pytest.approx(step["flops"] / step["median"])


def test_the_baseline_executes_more_than_ours_in_every_phase(headline: Path) -> None:
    flops = {key: step["flops"] for key, step in steps_of(headline).items()}
    titles = {title for title, _ in flops}
    assert all(flops[title, "baseline"] > flops[title, "fp32"] > 0 for title in titles)
    for precision in ("fp32", "bf16"):
        assert flops["retraining", f"{precision}, checkpointing"] > flops["retraining", precision], "computed again"
        assert flops["retraining", f"{precision}, least memory"] == flops["retraining", f"{precision}, checkpointing"]
    # A pass through the whole network for each task, whatever the gates: all steps of the weights are the same work.
    assert len({flops[title, "baseline"] for title in titles if "weights" in title or title == "retraining"}) == 1


def test_float32_agrees_and_other_precisions_are_what_they_say(headline: Path) -> None:
    agreement = json.loads(headline.read_text())["headline"]["agreement"]
    largest = {name: max(differences.values()) for name, differences in agreement.items()}
    assert largest.keys() == {variant.name for variant in measured_variants(TINY)}
    assert all((1e-3 < value < 1e-1) if "bf16" in name else (value < 1e-5) for name, value in largest.items())


def test_tables_come_from_the_file_alone(
    headline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["report", str(headline)])
    report.main()
    printed = capsys.readouterr().out
    steps = steps_of(headline)
    for (title, name), step in steps.items():
        assert f"| {title} | {name} | {report.cell(step['median'])} |" in printed
    speed = steps["test", "fp32"]["times_faster"]["median"]
    assert f"| fp32, test | at least 1.6x | {speed:.3g}x (" in printed
    assert "| fp32, least memory, peak of the process's own memory | at most 0.6x | not measured | - |" in printed


def test_a_machine_is_known_by_the_faster_of_its_rates() -> None:
    one = {"name": "CPU", "matmul": {"fp32": 3.0, "bf16": 5.0}, "copy": 1.0}
    other = {"name": "CPU", "matmul": {"fp32": 2.0, "bf16": 8.0}, "copy": 4.0}
    assert at_its_best(one, other) == {"name": "CPU", "matmul": {"fp32": 3.0, "bf16": 8.0}, "copy": 4.0}


def test_precisions_that_the_machine_emulates_are_left_out() -> None:
    slow = slow_rates({"matmul": {"fp32": 158.0, "bf16": 1.9, "fp16": 200.0}})
    assert slow == ("bf16",)
    measured = [variant.name for variant in measured_variants(replace(TINY, slow_rates=slow))]
    assert measured == ["fp32", "fp32, checkpointing", "fp32, least memory"]


def test_one_policy_costs_the_same_for_many_tasks_and_own_policies_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def operations(passes: dict, rounds: int, title: str) -> dict:
        return {key: count_flops(one_pass) for key, one_pass in passes.items()}

    monkeypatch.setattr(growth, "NUM_TASKS", (1, 20))
    monkeypatch.setattr(growth, "seconds_of_rounds", operations)
    series = growth.over_tasks(TINY).series
    one, twenty = series[growth.ONE_POLICY]
    assert one == twenty == series[growth.OWN_POLICIES][0]
    assert 3 * one < series[growth.OWN_POLICIES][1] < series["baseline"][1]
    assert series["baseline"][1] == 20 * series["baseline"][0]


def test_every_curve_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "seconds_of_rounds", lambda passes, *_: {key: [1.0, 2.0, 4.0] for key in passes})
    workers = [{"name": "files", "num_workers": number, "rounds": [10.0 + number, 20.0]} for number in (0, 1, 2)]
    batches = [{"images": 4, "seconds": {"one": [8.0, 4.0], "two": [2.0, 1.0], "two threads": [3.0, 3.0]}}]
    measured = {"growth": suites.growth(TINY), "loading": {"workers": workers}, "processes": {"batches": batches}}
    curves = run.all_curves(measured)
    assert [curve["title"].split(": ")[1] for curve in curves] == [
        "tasks on one image",
        "blocks",
        "image size",
        "batch",
        "open blocks",
        "open blocks",
        "processes of one thread",
        "workers",
    ]
    assert curves[-1]["series"] == {"files": [[10.0, 20.0], [11.0, 20.0], [12.0, 20.0]]}
    assert curves[-2]["series"] == {"batch of 4": [[0.5, 1.0], [2.0, 4.0]]}
    assert all(len(values) == len(curve["x"]) for curve in curves for values in curve["series"].values())
    draw_growth(tmp_path / "growth.png", curves)
    picture = cv2.imread(str(tmp_path / "growth.png"))
    fields = [field for rows in np.array_split(picture, 4) for field in np.array_split(rows, 2, axis=1)]
    assert all((field < 128).any() for field in fields)


def test_what_precision_does_to_metrics_is_measured_with_the_same_weights() -> None:
    measured = suites.metrics(TINY)
    names = [record["metric"] for record in measured["metrics"]]
    assert {"release/seg/mIoU", "release/sn/Angle Mean", "standard/depth/abs_err"} <= set(names)
    for record in measured["metrics"]:
        change = abs(record["bf16"] - record["fp32"]) / abs(record["fp32"])
        assert record["differences"] == {"fp32": 0, "bf16": pytest.approx(change)}
    assert 0 < max(record["differences"]["bf16"] for record in measured["metrics"]) < 0.2
    assert f"| {names[0]} | " in report.metrics_table(measured["metrics"])
    assert report.metrics_line(measured) == "1 small networks, 2 steps on 10 rendered rooms of 90x120, tested on 2"


@pytest.mark.long
def test_two_processes_learn_what_one_does(work: Work) -> None:
    measured = processes.compare_processes(work, [1], TINY)
    (batch,) = measured["batches"]
    assert batch["images"] == 2
    assert len(set(batch["losses"]["one"])) == 1 + processes.LEAST_STEPS
    assert batch["differences"]["one"] == 0
    assert max(batch["differences"].values()) < 1e-5
    assert "| 2 | " in report.processes_table(measured["batches"])


def test_a_step_of_a_crew_takes_as_long_as_the_slowest() -> None:
    class Member:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds
            self.asked: list[int] = []

        def send(self, request: int) -> None:
            self.asked.append(request)

        def recv(self) -> dict[str, float]:
            return {"loss": 0.5, "seconds": self.seconds}

    crew, losses = [Member(1.0), Member(2.0)], [0.7]
    assert processes.take_step(crew, losses) == {"total": 2.0}
    assert losses == [0.7, 0.5]
    assert [member.asked for member in crew] == [[1], [1]], "the dropout of both comes from one seed"


@pytest.mark.parametrize("is_asked_before", [False, True])
def test_a_crew_that_has_ended_is_one_sentence(is_asked_before: bool) -> None:
    ours, theirs = Pipe()
    if is_asked_before:
        ours.send(0)  # which it does not read any more
    theirs.close()
    with pytest.raises(UserError, match="processes: one of them has ended"):
        processes.take_step([ours], [])
