"""Checkpoints to go on from: found, looked at closely, and refused where a run would not be the same."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.data import Data
from envs.resuming import StoppedRun, refuse_another_run, refuse_other_data, stopped_run
from envs.run_identity import CHANGEABLE, fingerprint
from envs.weight_training import WeightTraining, train_weights
from tests.small_runs import ALL_BLOCKS, kept, run_files, small_data, small_run
from utils.checkpoint import save_checkpoint
from utils.config import TrainingConfig, flat_settings, load_config
from utils.devices import random_states, restore_random_states
from utils.errors import UserError
from utils.logger import RunLogger

GATES = {"seg": [1, 0, 1, 1, 0, 1, 1, 0], "depth": [1, 0, 0, 1, 1, 1, 0, 1]}
CONFIG = Path(__file__).parents[1] / "yamls" / "demo" / "rooms.yml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def left(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of `latest` after two iterations."""
    folder = tmp_path_factory.mktemp("run")
    with RunLogger(folder / "logs") as logger:
        run = small_run(folder, data, logger)
        train_weights(run, WeightTraining.start(run, "retraining", GATES), 2, "retraining", keeps_best=True)
    return kept(folder, "latest")


def go_on(folder: Path, data: Data, content: dict[str, Any], gates: dict[str, list[int]] = GATES) -> int:
    """Go on from this content of `latest`; returns the iteration that it was saved at."""
    save_checkpoint(run_files(folder).checkpoint("latest"), content)
    stopped = stopped_run(run_files(folder).of_training(), ["retraining"], resume=True, overwrite=False)
    with RunLogger(folder / "logs") as logger:
        return WeightTraining.start(small_run(folder, data, logger), "retraining", gates, stopped).progress.iteration


def refusal(folder: Path, data: Data, content: dict[str, Any], gates: dict[str, list[int]] = GATES) -> str:
    """The one line by which it is refused."""
    with pytest.raises(UserError) as error:
        go_on(folder, data, content, gates)
    assert str(run_files(folder).checkpoint("latest")) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_was_left_is_gone_on_with(tmp_path: Path, data: Data, left: dict[str, Any]) -> None:
    assert go_on(tmp_path, data, left) == 2


NEEDED = [
    "optimisers",
    "reports",
    "progress",
    "random_states",
    "log_position",
    "config",
    "seed",
    "num_samples",
    "phase",
]


@pytest.mark.parametrize("lacking", NEEDED)
def test_a_checkpoint_without_training_state_says_what_it_lacks(
    tmp_path: Path, data: Data, left: dict[str, Any], lacking: str
) -> None:
    said = refusal(tmp_path, data, {key: value for key, value in left.items() if key != lacking})
    assert f"({lacking} missing or damaged)" in said
    assert "--overwrite" in said


DAMAGE: dict[str, dict[str, Any]] = {
    "an iteration that is text": {"iter": "7"},
    "a negative position": {"log_position": -1},
    "an unknown phase": {"phase": "coffee"},
    "progress of another kind": {"progress": {"iteration": "seven"}},
    "an evaluation of another kind": {"progress": {"iteration": 2, "best": [1, 2]}},
    "no optimiser of that name": {"optimisers": {}},
    "an optimiser without state": {"optimisers": {"weights": {}}},
    "an optimiser whose state is text": {"optimisers": {"weights": {"state": "good", "param_groups": []}}},
    "reports of text": {"reports": {"weights": {"count": 1, "sums": {"seg": "1"}, "state": {}}}},
    "no reports": {"reports": {}},
    "random states of text": {"random_states": {"torch": "random", "numpy": "random", "python": "random"}},
    "random states that are too short": {
        "random_states": {**random_states(), "torch": torch.zeros(3, dtype=torch.uint8)}
    },
    "gates of text": {"gates": "all"},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_training_state_is_refused_in_one_line(
    tmp_path: Path, data: Data, left: dict[str, Any], damage: str
) -> None:
    refusal(tmp_path, data, left | DAMAGE[damage])


def test_weights_of_other_gates_are_not_gone_on_with(tmp_path: Path, data: Data, left: dict[str, Any]) -> None:
    assert "trained under other gates" in refusal(tmp_path, data, left, ALL_BLOCKS)


def test_without_being_asked_nothing_is_gone_on_with(tmp_path: Path, left: dict[str, Any]) -> None:
    checkpoints = run_files(tmp_path).of_training()
    assert stopped_run(checkpoints, ["retraining"], resume=False, overwrite=False) is None
    save_checkpoint(checkpoints.latest, left)
    with pytest.raises(UserError, match="holds a run already, saved after iteration 2"):
        stopped_run(checkpoints, ["retraining"], resume=False, overwrite=False)
    assert stopped_run(checkpoints, ["retraining"], resume=False, overwrite=True) is None


def test_a_run_of_another_phase_is_not_gone_on_with(tmp_path: Path, left: dict[str, Any]) -> None:
    checkpoints = run_files(tmp_path).of_training()
    save_checkpoint(checkpoints.latest, left)
    with pytest.raises(UserError, match="its phase is retraining, not warm-up or policy"):
        stopped_run(checkpoints, ["warm-up", "policy"], resume=True, overwrite=False)


def test_what_is_damaged_twice_says_how_to_begin_anew(tmp_path: Path) -> None:
    checkpoints = run_files(tmp_path).of_training()
    checkpoints.latest.parent.mkdir(parents=True)
    checkpoints.latest.write_bytes(b"damaged")
    checkpoints.previous.write_bytes(b"damaged")
    with pytest.raises(UserError, match="To begin anew, add --overwrite"):
        stopped_run(checkpoints, ["policy"], resume=True, overwrite=False)


def test_a_run_that_was_killed_between_two_renames_has_its_previous_checkpoint(
    tmp_path: Path, left: dict[str, Any]
) -> None:
    checkpoints = run_files(tmp_path).of_training()
    save_checkpoint(checkpoints.previous, left)
    stopped = stopped_run(checkpoints, ["retraining"], resume=True, overwrite=False)
    assert stopped.path == checkpoints.previous
    assert stopped.state.iteration == 2
    assert len(stopped.notes) == 1


def stopped_with(left: dict[str, Any], folder: Path, **content: Any) -> StoppedRun:
    checkpoints = run_files(folder).of_training()
    save_checkpoint(checkpoints.latest, left | content)
    return stopped_run(checkpoints, ["retraining"], resume=True, overwrite=False)


def test_only_settings_that_the_rest_of_a_run_can_follow_may_change(tmp_path: Path, left: dict[str, Any]) -> None:
    config = load_config(CONFIG)
    stopped = stopped_with(left, tmp_path, config=flat_settings(config))
    assert refuse_another_run(stopped, config, seed=88) == []
    faster = load_config(CONFIG, ["train.lr=0.125", "dataload.num_workers=7"], TrainingConfig)
    notes = refuse_another_run(stopped, faster, seed=88)
    assert notes == [
        f"train.lr is now 0.125 (it was {config.train.lr})",
        f"dataload.num_workers is now 7 (it was {config.dataload.num_workers})",
    ]
    other = load_config(CONFIG, ["train.batch_size=3", "backbone=ResNet34"], TrainingConfig)
    with pytest.raises(UserError, match=r"backbone was .*ResNet18.* and is .*ResNet34.*; train\.batch_size was"):
        refuse_another_run(stopped, other, seed=88)
    with pytest.raises(UserError, match="seed of this run was 88 and is 45"):
        refuse_another_run(stopped, config, seed=45)


def test_a_key_that_an_earlier_version_did_not_know_has_not_changed(tmp_path: Path, left: dict[str, Any]) -> None:
    config = load_config(CONFIG)
    known = {key: value for key, value in flat_settings(config).items() if key not in ("skip_layer", "train.save_freq")}
    assert refuse_another_run(stopped_with(left, tmp_path, config=known), config, seed=88) == []


def test_configurations_of_the_same_run_have_the_same_fingerprint() -> None:
    config = load_config(CONFIG)
    assert fingerprint(config) == fingerprint(load_config(CONFIG, ["train.lr=0.125", "paths.log_dir=elsewhere"]))
    assert fingerprint(config) != fingerprint(load_config(CONFIG, ["train.batch_size=3"]))
    assert flat_settings(config).keys() >= CHANGEABLE


# What a crash leaves between two saves


def test_best_is_what_its_file_is_even_where_it_is_ahead_of_latest(
    tmp_path: Path, data: Data, left: dict[str, Any]
) -> None:
    """A crash after `best` was saved; with other rates the lost iterations will not come again."""
    ahead = left["progress"]["best"] | {"iteration": 4, "score": 9.0}
    save_checkpoint(
        run_files(tmp_path).of_training().best, left | {"iter": 4, "progress": left["progress"] | {"best": ahead}}
    )
    save_checkpoint(run_files(tmp_path).of_training().latest, left)
    stopped = stopped_run(run_files(tmp_path).of_training(), ["retraining"], resume=True, overwrite=False)
    with RunLogger(tmp_path / "logs") as logger:
        training = WeightTraining.start(small_run(tmp_path, data, logger), "retraining", GATES, stopped)
    assert (training.progress.best.iteration, training.progress.best.score) == (4, 9.0)


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_best_that_cannot_be_read_makes_way_for_the_next(
    tmp_path: Path, data: Data, left: dict[str, Any], content: bytes | None
) -> None:
    checkpoints = run_files(tmp_path).of_training()
    save_checkpoint(checkpoints.latest, left)
    if content:
        checkpoints.best.write_bytes(content)
    stopped = stopped_run(checkpoints, ["retraining"], resume=True, overwrite=False)
    with RunLogger(tmp_path / "logs") as logger:
        training = WeightTraining.start(small_run(tmp_path, data, logger), "retraining", GATES, stopped)
    assert training.progress.best is None
    assert "the best evaluation from now on becomes best" in (tmp_path / "logs" / "log.txt").read_text()


def test_splits_of_another_size_are_refused(tmp_path: Path, data: Data, left: dict[str, Any]) -> None:
    refuse_other_data(stopped_with(left, tmp_path), data)
    with pytest.raises(UserError, match=r"split 'train' .* has 5 samples, but had 6"):
        refuse_other_data(stopped_with(left, tmp_path, num_samples={"train": 6}), data)


def test_every_generator_goes_on_where_it_was() -> None:
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    random.gauss(0, 1), np.random.normal()  # each keeps a second number for the next call
    states = random_states()
    drawn = [(random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), torch.rand(1).item())]
    restore_random_states(states)
    drawn.append((random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
