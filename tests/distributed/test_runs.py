"""Runs of two processes: training curves, stops, evaluations, and what they agree on."""

import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch
from torch import Tensor, nn

from envs.constant_predictor import fit_constant_predictor
from envs.data import Data
from envs.evaluation import Evaluation, evaluate
from envs.losses import Batch
from envs.policy_learning import learn_policy, warm_up
from envs.resuming import stopped_run
from envs.task_sets import build_tasks
from models.multitask import build_network
from models.policy import Curriculum
from models.shared_paths import Gates, all_blocks
from models.synchronised import synchronise_norms
from tests.distributed.pairs import Pair
from tests.script_runs import ROOT
from tests.small_runs import CPU, TASKS, StopAtCheck, kept, logged, run_files, small_run
from tests.test_domainnet import write_root
from tests.test_nyu_v2 import make_root
from tests.test_resuming import on_logits
from utils.collectives import sums_by_name
from utils.config import DataloadSection
from utils.devices import choose_device
from utils.distributed import (
    PATIENCE,
    all_gather_object,
    done_by_first,
    first_process_ahead,
    in_step,
    is_first_process,
    joined_processes,
    max_over_processes,
    num_processes,
    rank,
)
from utils.errors import UserError
from utils.interruption import Interrupted, Interruption
from utils.logger import open_log

# Training curves, and stops


def learn(
    folder: Path, frames: DataloadSection, interruption: Interruption, dtype: torch.dtype = torch.float32, **more: Any
) -> None:
    """Warm up and learn the policy as train.py does; goes on with what it finds in the folder.

    Args:
        dtype: of the network.
        more: settings of `train`.
    """
    data = Data(frames, TASKS, 88, CPU, ["train", "train1", "train2"], ["val"])
    stopped = stopped_run(run_files(folder).of_training(), ["warm-up", "policy"], resume=True, overwrite=False)
    torch.manual_seed(1 if stopped else 0)
    earlier = (stopped.state.iteration, stopped.state.log_position) if stopped else ()
    with suppress(Interrupted), open_log(run_files(folder).logs, *earlier) as logger:
        alternation = {"warm_up_iters": 4, "total_iters": 9, "weight_iter_alternate": 2, "alpha_iter_alternate": 1}
        run = small_run(folder, data, logger, interruption, policy_lr=0.001, **alternation, **more)
        run.net.to(dtype).register_forward_pre_hook(lambda net, inputs: (inputs[0].to(dtype), *inputs[1:]))
        synchronise_norms(run.net)
        if not stopped or stopped.state.phase == "warm-up":
            warm_up(run, stopped)
            stopped = None
        learn_policy(run, Curriculum(8, None), on_logits, stopped)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> DataloadSection:
    """Ten small frames, of which eight are train1 and two train2."""
    folder = tmp_path_factory.mktemp("frames")
    make_root(folder, list("abcdefghij"), height=32, width=48)
    return DataloadSection(dataset="NYU_v2", dataroot=str(folder), crop_h=16, crop_w=24, num_workers=0)


@pytest.fixture(scope="module")
def straight(frames: DataloadSection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by one process, without a stop."""
    folder = tmp_path_factory.mktemp("straight")
    learn(folder, frames, Interruption())
    return folder


def test_two_processes_have_the_training_curve_of_one(
    pair: Pair, frames: DataloadSection, straight: Path, tmp_path: Path
) -> None:
    pair.run(learn, tmp_path, frames, Interruption())
    assert_alike(tmp_path, straight)


def test_blocks_that_drawn_gates_leave_out_are_left_out_by_both(
    pair: Pair, frames: DataloadSection, tmp_path: Path
) -> None:
    """In float64: hard gates hardly change the losses, so that Adam would make steps of what is mostly rounding."""
    learn(tmp_path / "one", frames, Interruption(), torch.float64, hard_sampling=True)
    pair.run(partial(learn, hard_sampling=True), tmp_path / "two", frames, Interruption(), torch.float64)
    assert_alike(tmp_path / "two", tmp_path / "one", rounding=1e-6)


def test_any_number_goes_on_with_what_another_began(
    pair: Pair, frames: DataloadSection, straight: Path, tmp_path: Path
) -> None:
    """Two, then one, then two; the stops are amid warm-up, and amid policy learning after steps of both kinds."""
    pair.run(learn, tmp_path, frames, StopAtCheck(2))
    assert kept(tmp_path, "latest")["iter"] == 2
    learn(tmp_path, frames, StopAtCheck(7))
    assert kept(tmp_path, "latest")["iter"] == 7
    pair.run(learn, tmp_path, frames, Interruption())
    assert_alike(tmp_path, straight)


def assert_alike(folder: Path, straight: Path, rounding: float = 1e-4) -> None:
    """All that was logged, and what `latest` holds.

    Args:
        rounding: by so much weights and moments may differ: in float32, Adam makes steps of what is little else.
    """
    lines, expected = logged(run_files(folder).logs), logged(run_files(straight).logs)
    assert len(lines) == len(expected) == 14
    for line, expected_line in zip(lines, expected, strict=True):
        assert_equal_values(line, expected_line, rel=1e-5)
    found, latest = kept(folder, "latest"), kept(straight, "latest")
    torch.testing.assert_close(found["mtl-net"], latest["mtl-net"], rtol=rounding, atol=rounding)
    for optimiser in ("weights", "policy"):
        moments, expected_moments = (content["optimisers"][optimiser]["state"] for content in (found, latest))
        torch.testing.assert_close(moments, expected_moments, rtol=rounding, atol=rounding)
    assert torch.equal(found["random_states"]["torch"], latest["random_states"]["torch"])
    assert kept(folder, "best")["iter"] == kept(straight, "best")["iter"]


def assert_equal_values(found: dict[str, Any], expected: dict[str, Any], rel: float) -> None:
    """Of named values, numbers may differ a little."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, rel=rel) if isinstance(value, float) else value), name


# Domains with inputs of their own


def batches_of_domains(folder: Path) -> dict[str, list[dict[str, list[str]]]]:
    """The names in this process's batches of a data set with two domains: domain -> names."""
    section = DataloadSection(dataset="DomainNet", dataroot=str(folder), crop_h=8, crop_w=8, num_workers=0)
    data = Data(section, build_tasks("DomainNet", ["real", "sketch"], [3, 3]), 88, CPU, ["train"], ["test"])
    training = data.training("train", 4)
    return {
        "training": [next(training)["name"] for _ in range(4)],
        "evaluation": [batch["name"] for batch in data.evaluation("test", 2, whole=True)],
    }


def test_the_batches_of_each_domain_are_shared(pair: Pair, tmp_path: Path) -> None:
    """While training, each takes half of each domain's; in evaluation, of two batches each takes one."""
    write_root(tmp_path)
    alone, (first, second) = batches_of_domains(tmp_path), pair.run(batches_of_domains, tmp_path)
    for whole, *halves in zip(alone["training"], first["training"], second["training"], strict=True):
        assert whole == {domain: [*halves[0][domain], *halves[1][domain]] for domain in ("real", "sketch")}
        assert len(halves[0]["real"]) == len(halves[1]["sketch"]) == 2
    assert [*first["evaluation"], *second["evaluation"]] == alone["evaluation"]
    assert len(first["evaluation"]) == 1


# Evaluation


def evaluations(frames: DataloadSection) -> dict[str, Evaluation]:
    """Of five batches, of one batch, of none; of two domains, one of which ends earlier; of constants."""
    tasks = build_tasks("NYU_v2", ["seg", "sn", "depth"], [40, 3, 1], "decoded")
    data = Data(frames, tasks, 88, CPU, [], ["test"])
    torch.manual_seed(0)
    net = build_network(
        backbone="ResNet18", num_outputs={"seg": 40, "sn": 3, "depth": 1}, backbone_width=4, head_width=4
    )
    gates = all_blocks(tasks, 8)

    def evaluation(**options: Any) -> Evaluation:
        return evaluate(net, gates, data.evaluation("test", 2, whole=False, **options), tasks)

    constants = fit_constant_predictor(data.evaluation("test", 3, whole=True), tasks)
    domains = build_tasks("DomainNet", ["real", "sketch"], [2, 2])
    return {
        "five batches": evaluation(),
        "one batch": evaluation(most=1),
        "no batch": evaluation(most=0),
        "domains": evaluate(Certain(), all_blocks(domains, 1), domain_batches(), domains),
        "constants": evaluate(constants, gates, data.evaluation("test", 3, whole=True), tasks),
    }


class Certain(nn.Module):
    """Finds class 1 in everything."""

    def forward(self, inputs: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
        return {task: torch.tensor([[0.0, 5.0]]).expand(len(inputs[task]), 2) for task in gates}


def domain_batches() -> list[Batch]:
    """This process's, of three; the second domain is in the first one alone."""
    both = {"real": torch.tensor([1, 0]), "sketch": torch.tensor([1])}
    batches = [both, {"real": torch.tensor([1, 1])}, {"real": torch.tensor([0])}]
    whole = [{"img": {task: torch.zeros(len(own), 3) for task, own in batch.items()}, **batch} for batch in batches]
    return whole[rank() :: num_processes()]


def test_an_evaluation_is_that_of_the_whole_split(pair: Pair, frames: DataloadSection) -> None:
    """Medians too; where one has more batches than the other, or none; no sample counts twice."""
    alone = evaluations(frames)
    assert [alone[name].num_samples for name in alone] == [10, 2, 0, 6, 10]
    for of_process in pair.run(evaluations, frames):
        for name, evaluation in of_process.items():
            assert evaluation.num_samples == alone[name].num_samples
            # Constants are fitted in float32.
            assert_equal_values(evaluation.flat(), alone[name].flat(), rel=1e-6 if name == "constants" else 1e-12)


# What they agree on


def agreements(folder: Path) -> dict[str, Any]:
    """What each of two processes sees of the other."""
    number = rank()
    meetings: list[int] = []
    items = list(in_step(range(3 * number), before_each=lambda: meetings.append(len(all_gather_object(number)))))
    with first_process_ahead():
        found = (folder / "made").exists()
        (folder / "made").touch()
    return {
        "items": items,
        "meetings": meetings,
        "found": found,
        "gathered": all_gather_object({"number": number}),
        "highest": max_over_processes(10 * number),
        "done": done_by_first(made_once, folder / "done"),
        "first": is_first_process(),
        "device": choose_device([-1])[1],
    }


def made_once(path: Path) -> str:
    """Refuses to be done twice."""
    path.touch(exist_ok=False)
    return path.name


def test_they_wait_for_each_other_and_know_of_each_other(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone = agreements(tmp_path / "alone")
    common = {"gathered": [{"number": 0}, {"number": 1}], "highest": 10, "done": "done", "meetings": [2, 2, 2]}
    first, second = pair.run(agreements, tmp_path)
    assert first | common == first
    assert second | common == second
    assert [(of["items"], of["found"], of["first"]) for of in (first, second)] == [
        ([], False, True),
        ([0, 1, 2], True, False),
    ]
    assert first["device"].endswith("2 processes share the batches")
    assert (alone["items"], alone["found"], alone["first"], alone["gathered"]) == ([], False, True, [{"number": 0}])


def test_a_place_that_is_not_wholly_said_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="but not LOCAL_RANK, MASTER_PORT: let torchrun"), joined_processes():
        pass


def test_processes_that_are_told_to_stop_part_in_good_order(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Mock(num_processes=2, rank=0, **{"numbers_of_all.return_value": [0, 0]})
    monkeypatch.setattr("utils.channel.Channel", lambda *patience: channel)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(Interrupted), joined_processes():
        raise Interrupted(signal.SIGTERM)
    assert channel.method_calls == [call.numbers_of_all(0, PATIENCE), call.close()], "it closes after numbers alone"


def test_a_process_that_is_alone_knows_it_without_torch() -> None:
    """Those that read data ask, for their locks and progress bars, and start much faster so."""
    program = "import sys, utils.progress, utils.run_lock, utils.launching; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True) == "False\n"


def sums() -> dict[str, Tensor]:
    """Sums of which one process lacks one, and each has values of its own."""
    own = {"count": torch.tensor(2.0 + rank(), dtype=torch.float64)}
    return sums_by_name(own | ({} if is_first_process() else {"histogram": torch.ones(2, 3, dtype=torch.float64)}))


def test_sums_have_what_any_process_has(pair: Pair) -> None:
    for total in pair.run(sums):
        assert total["count"] == 5
        assert torch.equal(total["histogram"], torch.ones(2, 3, dtype=torch.float64))
