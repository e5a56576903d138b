"""Training under fixed gates: what is kept when, and what becomes of steps that are not finite."""

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.data import Data
from envs.run import Run
from envs.weight_training import WeightTraining, train_weights
from tests.small_runs import StopAtCheck, kept, logged, run_files, small_data, small_run
from utils.errors import UserError
from utils.interruption import Interrupted
from utils.logger import RunLogger

GATES = {"seg": [1, 0, 1, 1, 0, 1, 1, 0], "depth": [1, 0, 0, 1, 1, 1, 0, 1]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"))


def train(folder: Path, data: Data, until: int, keeps_best: bool = True, **settings: Any) -> tuple[Run, WeightTraining]:
    """Train a new network up to an iteration."""
    torch.manual_seed(0)
    with RunLogger(run_files(folder).logs) as logger:
        run = small_run(folder, data, logger, **settings)
        training = WeightTraining.start(run, "training", GATES)
        train_weights(run, training, until, "training", keeps_best)
    return run, training


def test_training_is_evaluated_and_kept_every_val_freq(tmp_path: Path, data: Data) -> None:
    _, training = train(tmp_path, data, until=5, val_freq=2)
    lines = logged(run_files(tmp_path).logs)
    scores = {line["iteration"]: line["score"] for line in lines if line["kind"] == "evaluation"}
    assert list(scores) == [2, 4]
    assert training.progress.best.score == max(scores.values()) == scores[training.progress.best.iteration]
    best, latest = kept(tmp_path, "best"), kept(tmp_path, "latest")
    assert (best["iter"], latest["iter"]) == (training.progress.best.iteration, 5)
    assert latest["progress"]["best"] == asdict(training.progress.best)
    assert best["gates"] == latest["gates"] == GATES


def test_rates_decay_by_iterations_and_are_logged_as_they_were(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, until=5, decay_lr_freq=2, decay_lr_rate=0.5, lr=0.01, backbone_lr=0.001)
    steps = [line for line in logged(run_files(tmp_path).logs) if line["kind"] == "weights"]
    assert [line["lr/backbone"] for line in steps] == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])
    assert [line["lr/heads"] for line in steps] == pytest.approx([1e-2, 1e-2, 5e-3, 5e-3, 2.5e-3])


def test_without_an_evaluation_the_final_state_is_best(tmp_path: Path, data: Data) -> None:
    _, training = train(tmp_path, data, until=3, val_freq=10)
    assert training.progress.best.iteration == kept(tmp_path, "best")["iter"] == 3
    assert kept(tmp_path, "latest")["progress"]["best"] == asdict(training.progress.best)
    assert "no evaluation within 3 iterations" in (run_files(tmp_path).logs / "log.txt").read_text()


def test_warm_up_keeps_no_best(tmp_path: Path, data: Data) -> None:
    _, training = train(tmp_path, data, until=3, keeps_best=False)
    assert training.progress.best is None
    names = {path.name for path in run_files(tmp_path).checkpoints.iterdir()}
    assert names == {"latest_model.pth.tar", "previous_model.pth.tar"}


def test_losses_of_the_last_steps_are_reported(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, until=5, print_freq=3, val_freq=10)
    steps = [line["iteration"] for line in logged(run_files(tmp_path).logs) if line["kind"] == "weights"]
    assert steps == [3, 5]


def test_latest_is_saved_before_the_first_step_every_save_freq_and_at_the_end(tmp_path: Path, data: Data) -> None:
    saved = []

    class Watched(WeightTraining):
        def save_latest(self, run: Run) -> None:
            saved.append(self.progress.iteration)
            super().save_latest(run)

    with RunLogger(tmp_path / "logs") as logger:
        run = small_run(tmp_path, data, logger, save_freq=3)
        train_weights(run, Watched.start(run, "training", GATES), 7, "training", keeps_best=False)
    assert saved == [0, 3, 6, 7]
    assert (kept(tmp_path, "previous")["iter"], kept(tmp_path, "latest")["iter"]) == (6, 7)


# Steps that are not finite


def spoil(data: Data, monkeypatch: pytest.MonkeyPatch, spoilt: set[int], value: float = float("nan")) -> None:
    """Give the batches of these numbers, from 1 on, a depth that is no number."""
    straight = type(data).training

    def training(self: Data, split: str, batch_size: int, start: int = 0) -> Any:
        batches = straight(self, split, batch_size, start)
        for number in itertools.count(start + 1):
            batch = next(batches)
            yield batch | {"depth": batch["depth"] * value} if number in spoilt else batch

    monkeypatch.setattr(type(data), "training", training)


def test_a_step_that_is_not_finite_is_left_out_and_logged(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(data, monkeypatch, {3})
    run, training = train(tmp_path, data, until=5, val_freq=10)
    assert training.progress.iteration == 5
    steps = [line for line in logged(run.files.logs) if line["kind"] != "evaluation"]
    assert [(line["kind"], line["iteration"]) for line in steps] == [
        ("weights", 1),
        ("weights", 2),
        ("bad_step", 3),
        ("weights", 4),
        ("weights", 5),
    ]
    bad = steps[2]
    assert bad["not_finite"] == ["depth", "total"]
    assert len(bad["samples"]) == 2
    assert "iteration 3: left out" in (run.files.logs / "log.txt").read_text()


def test_steps_that_stay_not_finite_end_the_run_and_leave_the_last_good_checkpoint(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(data, monkeypatch, set(range(4, 100)))
    said = r"at iteration 6, after 3 steps in a row .* lower train\.lr.* after iteration 2"
    with pytest.raises(UserError, match=said):
        train(tmp_path, data, until=20, save_freq=1, max_bad_steps=3, val_freq=100)
    # Not 3: what that step has led to may be what diverges.
    assert kept(tmp_path, "latest")["iter"] == 2
    assert all(value.isfinite().all() for value in kept(tmp_path, "latest")["mtl-net"].values())


@pytest.mark.parametrize("rate", [1e38, 1e20])  # infinite after a step, or finite but far too large
@pytest.mark.parametrize("until", [1, 20])  # the last step explodes, or any
@pytest.mark.parametrize("save_freq", [1, 100])
def test_weights_that_have_exploded_are_not_what_a_run_goes_on_from(
    tmp_path: Path, data: Data, rate: float, until: int, save_freq: int
) -> None:
    rates = {"lr": rate, "backbone_lr": rate}
    with pytest.raises(UserError, match=r"training has diverged|NaN or infinite"):
        train(tmp_path, data, until, **rates, val_freq=100, save_freq=save_freq)
    latest = kept(tmp_path, "latest")
    assert all(value.isfinite().all() for value in latest["mtl-net"].values())
    if until > 1:
        assert latest["iter"] == 0


def test_a_bad_step_at_the_end_is_no_reason_to_stop(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(data, monkeypatch, {3})
    train(tmp_path, data, until=3, val_freq=100)
    assert kept(tmp_path, "latest")["iter"] == 3


def test_a_save_that_falls_on_a_bad_step_is_made_up_for(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(data, monkeypatch, {3, 4})
    with pytest.raises(Interrupted):
        train(tmp_path, data, until=9, save_freq=3, val_freq=100, interruption=StopAtCheck(6))
    assert (kept(tmp_path, "previous")["iter"], kept(tmp_path, "latest")["iter"]) == (5, 6)


def test_gradients_that_are_not_finite_count_as_well(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = Tensor.backward

    def exploding(self: Tensor) -> None:
        straight(self)
        net.heads["seg"].branches[0].conv3.weight.grad[0] = float("inf")

    with RunLogger(tmp_path / "logs") as logger:
        run = small_run(tmp_path, data, logger, max_bad_steps=1)
        net = run.net
        monkeypatch.setattr(Tensor, "backward", exploding)
        with pytest.raises(UserError, match="training has diverged"):
            train_weights(run, WeightTraining.start(run, "training", GATES), 5, "training", keeps_best=False)
    (line,) = logged(tmp_path / "logs")
    assert line["not_finite"] == ["gradient"]


def test_float16_finds_its_scale_without_a_step_that_counts_as_bad(tmp_path: Path, data: Data) -> None:
    with RunLogger(tmp_path / "logs") as logger:
        run = small_run(tmp_path, data, logger, max_bad_steps=1, val_freq=100)
        run.net.precision = torch.float16
        training = WeightTraining.start(run, "training", GATES)
        training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
        before = run.net.heads["seg"].branches[0].conv1.weight.clone()
        train_weights(run, training, 25, "training", keeps_best=False)
    lines = logged(tmp_path / "logs")
    taken = [line for line in lines if line["kind"] == "weights"]
    scaled = [line for line in lines if line["kind"] == "scaled_step"]
    assert 3 < taken[0]["iteration"] < 25
    assert len(taken) >= 3
    assert [line["scale"] for line in scaled] == [2.0 ** (30 - number) for number in range(1, len(scaled) + 1)]
    assert {len(line["samples"]) for line in scaled} == {2}
    # As if all steps had been taken.
    assert taken[-1]["lr/heads"] == pytest.approx(0.001 * 0.5 ** ((taken[-1]["iteration"] - 1) // 2))
    assert (
        "a gradient is too large for float16; the loss is scaled by 5.36871e+08"
        in (tmp_path / "logs" / "log.txt").read_text()
    )
    assert not torch.equal(run.net.heads["seg"].branches[0].conv1.weight, before)


def test_a_loss_that_is_not_finite_is_bad_in_float16_too(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(data, monkeypatch, {1})
    with RunLogger(tmp_path / "logs") as logger:
        run = small_run(tmp_path, data, logger, max_bad_steps=1)
        run.net.precision = torch.float16
        with pytest.raises(UserError, match=r"training has diverged.* set train.precision to bf16 or fp32"):
            train_weights(run, WeightTraining.start(run, "training", GATES), 5, "training", keeps_best=False)
