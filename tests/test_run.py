"""What the phases share: scored evaluations, checkpoints with training state, the policy's file."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from envs.evaluation import Evaluation
from envs.optimisers import step_decay, warm_up_optimiser
from envs.policy_learning import write_policy
from envs.run import Run, ScoredEvaluation
from envs.scoring import score
from tests.small_runs import ALL_BLOCKS, TASKS, logged, run_files, small_data, small_net, small_run
from utils.checkpoint import load_checkpoint, load_weights
from utils.logger import RunLogger


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Makes runs of which the given settings differ from the small ones."""
    data = small_data(tmp_path / "data")
    with RunLogger(run_files(tmp_path).logs) as logger:
        yield lambda **settings: small_run(tmp_path, data, logger, **settings)


def test_a_run_evaluates_scores_and_logs(make_run: Callable[..., Run]) -> None:
    run = make_run(eval_batches=1)
    scored = run.evaluate(ALL_BLOCKS, 400)
    assert scored.iteration == 400
    assert scored.evaluation.num_samples == 2
    assert scored.score == score(scored.evaluation.metrics["release"], TASKS)
    (line,) = logged(run.files.logs)
    expected = {"kind": "evaluation", "iteration": 400, "score": scored.score, **scored.evaluation.flat()}
    assert line == expected
    assert f"score {scored.score:.4f}" in (run.files.logs / "log.txt").read_text()


def test_all_batches_are_evaluated_where_no_number_is_set(make_run: Callable[..., Run]) -> None:
    assert make_run(eval_batches=None).evaluate(ALL_BLOCKS, 1).evaluation.num_samples == 4


def a_scored_evaluation() -> ScoredEvaluation:
    metrics = {"release": {"seg": {"mIoU": 0.25, "err": None}}, "standard": {"seg": None}}
    return ScoredEvaluation(Evaluation(metrics, num_samples=4), 1.75, 400)


def test_a_scored_evaluation_comes_back_from_its_dict() -> None:
    assert ScoredEvaluation.from_dict(asdict(a_scored_evaluation())) == a_scored_evaluation()


def test_a_checkpoint_brings_back_weights_training_state_and_random_numbers(make_run: Callable[..., Run]) -> None:
    run = make_run()
    optimiser = warm_up_optimiser(run.net, 0.1, 0.01)
    decay = step_decay(optimiser, (4, 0.5), (4, 0.5))
    sum(prediction.sum() for prediction in run.net(torch.ones(2, 3, 32, 48), ALL_BLOCKS).values()).backward()
    optimiser.step()
    decay.step()
    torch.manual_seed(5)
    run.save("latest", 12, {"weights": optimiser}, {"weights": decay}, a_scored_evaluation(), temp=4.8, period=3)
    drawn_after_saving = torch.rand(3)

    path = run.files.checkpoint("latest")
    checkpoint = load_checkpoint(path)
    assert {key: checkpoint[key] for key in ("iter", "temp", "period")} == {"iter": 12, "temp": 4.8, "period": 3}
    assert ScoredEvaluation.from_dict(checkpoint["best"]) == a_scored_evaluation()
    torch.set_rng_state(checkpoint["random_states"]["torch"])
    assert torch.equal(torch.rand(3), drawn_after_saving)
    net = small_net()
    load_weights(net, checkpoint["mtl-net"], path)
    torch.testing.assert_close(dict(net.state_dict()), dict(run.net.state_dict()), rtol=0, atol=0)
    other = warm_up_optimiser(net, 0.1, 0.01)
    other.load_state_dict(checkpoint["optimisers"]["weights"])
    torch.testing.assert_close(other.state_dict()["state"], optimiser.state_dict()["state"], rtol=0, atol=0)
    assert checkpoint["decays"]["weights"]["last_epoch"] == 1


def test_a_checkpoint_before_the_first_evaluation_has_no_best(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.save("warmup", 3, {}, {}, best=None, temp=5.0)
    checkpoint = load_checkpoint(run.files.checkpoint("warmup"))
    assert (checkpoint["best"], checkpoint["iter"], checkpoint["temp"]) == (None, 3, 5.0)


def test_the_policy_file_has_a_probability_per_task_and_block(make_run: Callable[..., Run]) -> None:
    run = make_run()
    with torch.no_grad():
        run.net.policy.logits["depth"][7] = torch.tensor([3.0, 0.0])
    write_policy(run, 400, num_open=3)
    policy = json.loads((run.files.results / "policy.json").read_text())
    assert (policy["checkpoint"], policy["iteration"], policy["open_blocks"]) == ("best", 400, 3)
    assert policy["execution_probability"]["seg"] == [1.0] * 5 + [0.5] * 3
    expected = [1.0] * 5 + [0.5] * 2 + [1 / (1 + math.exp(-3))]
    assert policy["execution_probability"]["depth"] == pytest.approx(expected)
    assert (run.files.results / "policy.png").read_bytes().startswith(b"\x89PNG")


def test_anything_is_better_than_nothing_and_only_more_is_better_than_something() -> None:
    some = a_scored_evaluation()
    more = ScoredEvaluation(some.evaluation, some.score + 0.25, 200)
    assert some.is_better_than(None)
    assert more.is_better_than(some)
    assert not some.is_better_than(more)
    assert not some.is_better_than(a_scored_evaluation())
