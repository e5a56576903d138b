"""What the phases share: scored evaluations, and the policy's file."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from envs.evaluation import Evaluation
from envs.policy_learning import write_policy
from envs.run import Run, ScoredEvaluation
from envs.scoring import score
from tests.small_runs import ALL_BLOCKS, TASKS, logged, run_files, small_data, small_run
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


def test_the_policy_file_has_a_probability_per_task_and_block(make_run: Callable[..., Run]) -> None:
    run = make_run()
    with torch.no_grad():
        run.net.policy.logits["depth"][7] = torch.tensor([3.0, 0.0])
    write_policy(run, run.net.policy, iteration=400, num_open=3)
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
