"""Runs that are stopped at any moment and gone on with: nothing shows that they were."""

import shutil
from itertools import count
from pathlib import Path
from weakref import ref

import pytest
import torch
from torch import Tensor

from envs.data import Data
from envs.policy_learning import learn_policy, warm_up
from envs.resuming import stopped_run
from envs.weight_training import WeightTraining, train_weights
from models.policy import Curriculum
from tests.small_runs import StopAtCheck, kept, run_files, same, small_data, small_run
from utils.interruption import Interrupted, Interruption
from utils.logger import RunLogger

GATES = {"seg": [1, 0, 1, 1, 0, 1, 1, 0], "depth": [1, 0, 0, 1, 1, 1, 0, 1]}
ALTERNATION = {"weight_iter_alternate": 2, "alpha_iter_alternate": 2}
SETTINGS = {
    "ends amid weight steps": {"warm_up_iters": 3, "total_iters": 12, **ALTERNATION},
    "ends amid policy steps": {"warm_up_iters": 2, "total_iters": 8, **ALTERNATION},
    "reports across saves": {"warm_up_iters": 4, "total_iters": 10, "print_freq": 3, **ALTERNATION},
    "hard gates and decaying rates": {
        "warm_up_iters": 2,
        "total_iters": 9,
        "hard_sampling": True,
        "policy_decay_lr_freq": 2,
        "policy_decay_lr_rate": 0.5,
        **ALTERNATION,
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"), ["train", "train1", "train2"])


def on_logits(logits: dict[str, Tensor], num_open: int) -> dict[str, Tensor]:
    """Something to learn for the open blocks' logits."""
    return {"sparsity": sum(task[-num_open:, 0].sum() for task in logits.values())}


def learn(folder: Path, data: Data, interruption: Interruption, **settings: object) -> None:
    """Warm up and learn the policy as train.py does; goes on with what it finds in the folder."""
    checkpoints = run_files(folder).of_training()
    stopped = stopped_run(checkpoints, ["warm-up", "policy"], resume=True, overwrite=False)
    # Another seed when going on: all that matters must come from the checkpoint.
    torch.manual_seed(1 if stopped else 0)
    earlier = (stopped.state.iteration, stopped.state.log_position) if stopped else ()
    with RunLogger(run_files(folder).logs, *earlier) as logger:
        run = small_run(folder, data, logger, interruption, save_freq=4, **settings)
        if not stopped or stopped.state.phase == "warm-up":
            warm_up(run, stopped)
            stopped = None
        learn_policy(run, Curriculum(2, 1), on_logits, stopped)


def retrain(folder: Path, data: Data, interruption: Interruption, **settings: object) -> None:
    """Train under fixed gates as re-train.py does; goes on with what it finds in the folder."""
    stopped = stopped_run(run_files(folder).of_training(), ["retraining"], resume=True, overwrite=False)
    torch.manual_seed(1 if stopped else 0)
    earlier = (stopped.state.iteration, stopped.state.log_position) if stopped else ()
    with RunLogger(run_files(folder).logs, *earlier) as logger:
        run = small_run(folder, data, logger, interruption, **settings)
        training = WeightTraining.start(run, "retraining", GATES, stopped)
        train_weights(run, training, 6, "retraining", keeps_best=True)


def assert_alike(folder: Path, straight: Path) -> None:
    """Checkpoints to the last bit, every line of the metrics, and the policy's file."""
    for label in ("latest", "best"):
        assert same(kept(folder, label), kept(straight, label)), label
    files, expected = run_files(folder), run_files(straight)
    assert (files.logs / "metrics.jsonl").read_bytes() == (expected.logs / "metrics.jsonl").read_bytes()
    if expected.results.exists():
        assert (files.results / "policy.json").read_bytes() == (expected.results / "policy.json").read_bytes()


@pytest.mark.parametrize("case", SETTINGS)
def test_policy_learning_goes_on_from_wherever_it_was_stopped(case: str, tmp_path: Path, data: Data) -> None:
    """Stops after each step and before each evaluated batch, in one run after the other."""
    learn(tmp_path / "straight", data, Interruption(), **SETTINGS[case])
    phases = set()
    for number in count(1):
        folder = tmp_path / "stopped"
        try:
            learn(folder, data, StopAtCheck(number), **SETTINGS[case])
        except Interrupted:
            phases.add(kept(folder, "latest")["phase"])
            learn(folder, data, Interruption(), **SETTINGS[case])
            assert_alike(folder, tmp_path / "straight")
            shutil.rmtree(folder)
        else:
            break
    assert number > SETTINGS[case]["total_iters"]
    assert phases == {"warm-up", "policy"}


def test_a_run_that_is_stopped_again_and_again_gets_there(tmp_path: Path, data: Data) -> None:
    settings = SETTINGS["reports across saves"]
    learn(tmp_path / "straight", data, Interruption(), **settings)
    stops = 0
    while True:
        try:
            learn(tmp_path / "stopped", data, StopAtCheck(2), **settings)
        except Interrupted:
            stops += 1
        else:
            break
    assert stops > 5
    assert_alike(tmp_path / "stopped", tmp_path / "straight")


@pytest.mark.parametrize("val_freq", [2, 3, 10])  # 10: no evaluation but the final one
def test_retraining_goes_on_from_wherever_it_was_stopped(tmp_path: Path, data: Data, val_freq: int) -> None:
    settings = {"val_freq": val_freq, "decay_lr_freq": 2, "decay_lr_rate": 0.5, "eval_batches": None}
    retrain(tmp_path / "straight", data, Interruption(), **settings)
    for number in count(1):
        folder = tmp_path / "stopped"
        try:
            retrain(folder, data, StopAtCheck(number), **settings)
        except Interrupted:
            retrain(folder, data, Interruption(), **settings)
            assert_alike(folder, tmp_path / "straight")
            shutil.rmtree(folder)
        else:
            break
    assert number > 6


def test_what_a_run_went_on_with_is_not_kept(tmp_path: Path, data: Data) -> None:
    with pytest.raises(Interrupted):
        retrain(tmp_path, data, StopAtCheck(3))
    stopped = stopped_run(run_files(tmp_path).of_training(), ["retraining"], resume=True, overwrite=False)
    (moments, *_) = stopped.state.optimisers["weights"]["state"].values()
    left = [ref(tensor) for tensor in (*stopped.state.weights.values(), moments["exp_avg"], moments["exp_avg_sq"])]
    del moments
    with RunLogger(run_files(tmp_path).logs, stopped.state.iteration, stopped.state.log_position) as logger:
        WeightTraining.start(small_run(tmp_path, data, logger), "retraining", GATES, stopped)
    assert not any(tensor() is not None for tensor in left)
