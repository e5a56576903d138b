"""Warm-up and policy learning on a small run: who learns when, what is logged, how it ends."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from envs.data import Data
from envs.policy_learning import learn_policy, warm_up
from envs.restoring import load_learned_policy
from envs.run import Run, ScoredEvaluation
from models.policy import Curriculum
from tests.small_runs import ALL_BLOCKS, logged, run_files, small_data, small_net, small_run
from utils.checkpoint import load_checkpoint
from utils.logger import RunLogger


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"), ["train", "train1", "train2"])


def sparsity(logits: dict[str, Tensor], num_open: int) -> dict[str, Tensor]:
    """Something to learn for the open blocks' logits."""
    return {"sparsity": sum(task[-num_open:, 0].sum() for task in logits.values())}


def learn(folder: Path, data: Data, curriculum: Curriculum, **settings: object) -> tuple[Run, ScoredEvaluation]:
    """Learn the policy of a new network, from the first iteration on."""
    torch.manual_seed(0)
    with RunLogger(run_files(folder).logs) as logger:
        run = small_run(folder, data, logger, warm_up_iters=0, **settings)
        return run, learn_policy(run, curriculum, sparsity, None)


def steps(folder: Path) -> list[tuple[str, int]]:
    """(kind, iteration) of the reported losses."""
    lines = logged(run_files(folder).logs)
    return [(line["kind"], line["iteration"]) for line in lines if line["kind"] in ("weights", "policy")]


def test_weights_and_policy_take_turns(tmp_path: Path, data: Data) -> None:
    learn(tmp_path, data, Curriculum(8, None), total_iters=7, weight_iter_alternate=2, alpha_iter_alternate=1)
    kinds = ["weights", "weights", "policy", "weights", "weights", "policy", "weights"]
    assert steps(tmp_path) == list(zip(kinds, range(1, 8), strict=True))


def test_what_a_period_leaves_is_reported_at_its_end(tmp_path: Path, data: Data) -> None:
    alternation = {"weight_iter_alternate": 3, "alpha_iter_alternate": 1}
    learn(tmp_path, data, Curriculum(8, None), total_iters=6, print_freq=2, **alternation)
    assert steps(tmp_path) == [("weights", 2), ("weights", 3), ("policy", 4), ("weights", 6)]


def test_temperature_and_curriculum_change_from_period_to_period(tmp_path: Path, data: Data) -> None:
    alternation = {"weight_iter_alternate": 1, "alpha_iter_alternate": 1}
    learn(tmp_path, data, Curriculum(8, 1), total_iters=6, init_temp=4.0, decay_temp=0.5, **alternation)
    lines = [line for line in logged(run_files(tmp_path).logs) if line["kind"] in ("weights", "policy")]
    assert [line["temperature"] for line in lines] == [4, 4, 2, 2, 1, 1]
    assert [line["open_blocks"] for line in lines] == [1, 1, 2, 2, 3, 3]


def test_an_early_end_makes_the_final_state_best_with_its_closed_blocks(tmp_path: Path, data: Data) -> None:
    run, best = learn(tmp_path, data, Curriculum(8, 1), total_iters=8)
    assert best.iteration == 8
    assert "ended before iteration 32" in (run.files.logs / "log.txt").read_text()
    learned = load_learned_policy(small_net(), run.files.checkpoint("best"))
    assert learned.num_open == 2
    for task, logits in learned.policy.logits.items():
        assert torch.equal(logits, run.net.policy.logits[task])
        # Weight decay alone moves the logits of closed blocks, execute and skip alike.
        assert torch.equal(logits[:-2, 0], logits[:-2, 1])
        assert (logits[-2:, 0] != logits[-2:, 1]).all()


def test_best_is_chosen_once_every_block_is_open(tmp_path: Path, data: Data) -> None:
    alternation = {"weight_iter_alternate": 1, "alpha_iter_alternate": 1}
    run, best = learn(tmp_path, data, Curriculum(2, 1), total_iters=9, **alternation)
    evaluations = [line for line in logged(run.files.logs) if line["kind"] == "evaluation"]
    assert [line["iteration"] for line in evaluations] == [1, 3, 5, 7, 9]
    open_ones = {line["iteration"]: line["score"] for line in evaluations if line["iteration"] > 4}
    assert best.iteration in open_ones
    assert best.score == max(open_ones.values()) == open_ones[best.iteration]
    assert load_checkpoint(run.files.checkpoint("best"))["iter"] == best.iteration


def test_policy_steps_leave_the_weights_alone_and_weight_steps_the_logits(tmp_path: Path, data: Data) -> None:
    run, _ = learn(tmp_path, data, Curriculum(8, None), total_iters=1, weight_iter_alternate=1)
    fresh = [[0.5, 0.5]] * 8
    assert all(logits.tolist() == fresh for logits in run.net.policy.logits.values())
    after_weights = load_checkpoint(run.files.checkpoint("latest"))["mtl-net"]
    other, _ = learn(tmp_path, data, Curriculum(8, None), total_iters=2, weight_iter_alternate=1)
    assert all((logits != 0.5).all() for logits in other.net.policy.logits.values())
    parameters = {name: value for name, value in other.net.named_parameters() if not name.startswith("policy.")}
    assert parameters
    assert all(torch.equal(value, after_weights[name]) for name, value in parameters.items())


def test_warm_up_ends_before_the_policys_first_iteration(tmp_path: Path, data: Data) -> None:
    with RunLogger(run_files(tmp_path).logs) as logger:
        run = small_run(tmp_path, data, logger, warm_up_iters=3, total_iters=4, weight_iter_alternate=1)
        warm_up(run, None)
        kept = load_checkpoint(run.files.checkpoint("warmup"))
        assert (kept["iter"], kept["gates"]) == (2, ALL_BLOCKS)
        learn_policy(run, Curriculum(8, None), sparsity, None)
    assert steps(tmp_path) == [("weights", 1), ("weights", 2), ("weights", 3), ("policy", 4)]
