"""Training under fixed gates: what is kept when, and that a run that stopped goes on as if it had not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.data import Data
from envs.run import Run, ScoredEvaluation
from envs.weight_training import WeightTraining, read_training_state, train_weights
from models.shared_paths import HardGates
from tests.small_runs import ALL_BLOCKS, logged, run_files, small_data, small_run
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.logger import RunLogger

GATES = {"seg": [1, 0, 1, 1, 0, 1, 1, 0], "depth": [1, 0, 0, 1, 1, 1, 0, 1]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"))


def train(
    folder: Path,
    data: Data,
    until: int,
    resume: bool = False,
    seed: int = 0,
    best: str | None = "best",
    **settings: Any,
) -> tuple[Run, WeightTraining]:
    """Train up to an iteration, from the start or from the `latest` checkpoint; seeds as a script would."""
    torch.manual_seed(seed)
    latest = run_files(folder).checkpoint("latest")
    finished = load_checkpoint(latest)["iter"] if resume else 0
    with RunLogger(run_files(folder).logs, finished) as logger:
        run = small_run(folder, data, logger, **settings)
        training = WeightTraining.start(run, GATES)
        if resume:
            training.restore(run, read_training_state(latest, GATES, None), latest)
        train_weights(run, training, until, "training", "latest", best)
    return run, training


def kept(folder: Path, label: str) -> dict[str, Any]:
    return load_checkpoint(run_files(folder).checkpoint(label))


def same(one: Any, other: Any) -> bool:
    """Whether two contents of checkpoints are equal to the last bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("val_freq", [2, 3])  # evaluated on both sides of the stop, or before it only
def test_a_resumed_training_equals_a_straight_one_to_the_last_bit(tmp_path: Path, data: Data, val_freq: int) -> None:
    train(tmp_path / "straight", data, until=5, val_freq=val_freq)
    train(tmp_path / "stopped", data, until=3, val_freq=val_freq)
    # Another seed: all that matters must come from the checkpoint.
    train(tmp_path / "stopped", data, until=5, val_freq=val_freq, resume=True, seed=1)
    for label in ("latest", "best"):
        assert same(kept(tmp_path / "stopped", label), kept(tmp_path / "straight", label))
    assert kept(tmp_path / "stopped", "latest")["iter"] == 5
    lines = {name: logged(run_files(tmp_path / name).logs) for name in ("straight", "stopped")}
    assert lines["stopped"] == lines["straight"]
    assert [line["iteration"] for line in lines["stopped"] if line["kind"] == "weights"] == [1, 2, 3, 4, 5]


def test_training_is_evaluated_and_kept_every_val_freq(tmp_path: Path, data: Data) -> None:
    _, training = train(tmp_path, data, until=5, val_freq=2)
    lines = logged(run_files(tmp_path).logs)
    scores = {line["iteration"]: line["score"] for line in lines if line["kind"] == "evaluation"}
    assert list(scores) == [2, 4]
    assert training.best.score == max(scores.values()) == scores[training.best.iteration]
    best, latest = kept(tmp_path, "best"), kept(tmp_path, "latest")
    assert (best["iter"], latest["iter"]) == (training.best.iteration, 5)
    assert ScoredEvaluation.from_dict(latest["best"]) == training.best
    assert best["gates"] == latest["gates"] == GATES


def test_rates_decay_by_iterations_and_are_logged_as_they_were(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, until=5, decay_lr_freq=2, decay_lr_rate=0.5, lr=0.01, backbone_lr=0.001)
    steps = [line for line in logged(run_files(tmp_path).logs) if line["kind"] == "weights"]
    assert [line["lr/backbone"] for line in steps] == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])
    assert [line["lr/heads"] for line in steps] == pytest.approx([1e-2, 1e-2, 5e-3, 5e-3, 2.5e-3])


def test_without_an_evaluation_the_final_state_is_best(tmp_path: Path, data: Data) -> None:
    _, training = train(tmp_path, data, until=3, val_freq=10)
    assert training.best.iteration == kept(tmp_path, "best")["iter"] == 3
    assert ScoredEvaluation.from_dict(kept(tmp_path, "latest")["best"]) == training.best
    assert "no evaluation within 3 iterations" in (run_files(tmp_path).logs / "log.txt").read_text()


def test_without_a_label_no_best_is_kept(tmp_path: Path, data: Data) -> None:
    _, training = train(tmp_path, data, until=3, best=None)
    assert training.best is None
    assert [path.name for path in run_files(tmp_path).checkpoints.iterdir()] == ["latest_model.pth.tar"]


def test_losses_of_the_last_steps_are_reported(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, until=5, print_freq=3, val_freq=10)
    steps = [line["iteration"] for line in logged(run_files(tmp_path).logs) if line["kind"] == "weights"]
    assert steps == [3, 5]


def test_a_loss_that_is_not_finite_is_not_saved_over_what_was_good(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, until=3)
    before = kept(tmp_path, "latest")
    torch.manual_seed(0)
    with RunLogger(tmp_path / "logs") as logger:
        run = small_run(tmp_path, data, logger, lr=1e30, backbone_lr=1e30)
        training = WeightTraining.start(run, GATES)
        with pytest.raises(UserError, match="training has diverged"):
            train_weights(run, training, 5, "training", "latest", "best")
    assert same(kept(tmp_path, "latest"), before)


def refusal(folder: Path, data: Data, gates: HardGates) -> str:
    """The sentence by which `latest` is refused."""
    with RunLogger(folder / "logs") as logger:
        run = small_run(folder, data, logger)
        latest, training = run.files.checkpoint("latest"), WeightTraining.start(run, gates)
        with pytest.raises(UserError) as error:
            training.restore(run, read_training_state(latest, gates, None), latest)
    return str(error.value)


def test_weights_of_other_gates_are_not_resumed(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, until=1)
    assert "trained under other gates" in refusal(tmp_path, data, ALL_BLOCKS)


def test_weights_that_learned_other_words_are_not_resumed(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, until=1)
    latest = run_files(tmp_path).checkpoint("latest")
    save_checkpoint(latest, kept(tmp_path, "latest") | {"vocabulary": ("good", "bad")})
    assert read_training_state(latest, GATES, ("good", "bad"))["iter"] == 1
    with pytest.raises(UserError, match="has learned other words than the policy's"):
        read_training_state(latest, GATES, ("bad", "good"))


@pytest.mark.parametrize("lacking", ["gates", "optimisers", "decays", "best", "random_states"])
def test_a_checkpoint_without_training_state_is_not_resumed(tmp_path: Path, data: Data, lacking: str) -> None:
    train(tmp_path, data, until=1)
    checkpoint = kept(tmp_path, "latest")
    del checkpoint[lacking]
    save_checkpoint(run_files(tmp_path).checkpoint("latest"), checkpoint)
    assert "holds no training state" in refusal(tmp_path, data, GATES)
