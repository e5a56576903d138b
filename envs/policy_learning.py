"""Phases 1 and 2: warm up the weights, then learn weights and policy in turns (paper section 3, algorithm 1)."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from envs.data import BatchStream
from envs.losses import Batch
from envs.optimisers import StepDecay, begin_momenta, learning_rates, loss_scaler, policy_optimiser, weight_optimiser
from envs.resuming import StoppedRun, restore
from envs.run import Run, ScoredEvaluation
from envs.step_reports import StepReports
from envs.steps import policy_step, training_mode, weight_step
from envs.training import Progress, Training, attempt, saved_when_interrupted
from envs.updates import Update, net_and_update
from envs.weight_training import WeightTraining, train_weights
from models.policy import Curriculum, Policy
from models.replication import common_gates, common_noise
from models.shared_paths import Gates, all_blocks, decided
from utils.checkpoint import load_checkpoint, load_weights
from utils.devices import derived_seed
from utils.distributed import done_by_first
from utils.files import write_json
from utils.pictures import save_shares
from utils.tables import format_shares

Regularisers = Callable[[dict[str, Tensor], int], dict[str, Tensor]]
"""(logits, open blocks) -> the named losses on the logits that are switched on."""


def warm_up(run: Run, stopped: StoppedRun | None) -> None:
    """Phase 1: train the weights while every task executes every block; saves `warmup`. Goes on from `stopped`."""
    training = WeightTraining.start(run, "warm-up", all_blocks(run.tasks, run.net.num_blocks), stopped)
    train_weights(run, training, warm_up_end(run), "warm-up", keeps_best=False)
    warmed_up = run.files.checkpoint("warmup")
    training.save(run, warmed_up)
    run.logger.message(f"warm-up finished, saved {warmed_up}")


def warm_up_end(run: Run) -> int:
    """The last iteration of warm-up: they count from 1, and the policy's begin with `warm_up_iters` (release)."""
    return max(run.settings.warm_up_iters - 1, 0)


def train_without_policy(run: Run, stopped: StoppedRun | None) -> ScoredEvaluation:
    """Hard parameter sharing (`policy: False`): every task executes every block, to the end; saves `best`."""
    training = WeightTraining.start(run, "training", all_blocks(run.tasks, run.net.num_blocks), stopped)
    train_weights(run, training, run.settings.total_iters, "training", keeps_best=True)
    return training.progress.best


@dataclass(kw_only=True)
class PolicyProgress(Progress):
    """How far policy learning has come. Iterations count warm-up's too.

    Attributes:
        temperature: tau of Gumbel-Softmax.
        num_open: how many of the last blocks follow the policy in this period.
        period: p, the number of finished periods of weight and policy steps.
        position: steps finished in the current period.
    """

    temperature: float
    num_open: int
    period: int = 0
    position: int = 0

    def weight_steps_taken(self, per_period: int) -> int:
        """Batches of `train1` used so far, where a period has so many weight steps."""
        return self.period * per_period + min(self.position, per_period)

    def policy_steps_taken(self, per_period: int, weight_steps: int) -> int:
        """Batches of `train2` used so far, where a period has so many policy steps after its weight steps."""
        return self.period * per_period + max(0, self.position - weight_steps)


@dataclass
class PolicyLearning(Training):
    """What learns the policy, and how far it has come.

    Attributes:
        weight_steps, policy_steps: how many a period has of each.
        net, weight_update: the run's network as weight steps call it, and what they end with.
    """

    phase: ClassVar[str] = "policy"

    weight_steps: int
    policy_steps: int
    net: nn.Module
    weight_update: Update
    weight_optimiser: Optimizer
    weight_decay: StepDecay
    policy_optimiser: Optimizer
    scaler: GradScaler
    weight_reports: StepReports
    policy_reports: StepReports
    progress: PolicyProgress

    @classmethod
    def start(cls, run: Run, curriculum: Curriculum, stopped: StoppedRun | None = None) -> "PolicyLearning":
        """New optimisers for both kinds of parameters (release); goes on from `stopped`.

        Raises:
            UserError: the stopped run is not of this network.
        """
        settings = run.settings
        weight_steps = settings.weight_iter_alternate or run.data.batches_per_pass("train1", settings.batch_size)
        policy_steps = settings.alpha_iter_alternate or run.data.batches_per_pass("train2", settings.batch_size)
        optimisers = {
            "weights": weight_optimiser(run.net, settings.heads_lr, settings.backbone_lr),
            "policy": policy_optimiser(run.net, settings.policy_lr),
        }
        scaler = loss_scaler(run.net)
        reports = {kind: StepReports(run.logger, kind, settings.print_freq, run.loss_weights) for kind in optimisers}
        begin = {"temperature": settings.init_temp, "num_open": curriculum.num_open(0)}
        progress = PolicyProgress(iteration=warm_up_end(run), **begin)
        if stopped:
            progress = restore(stopped, run, PolicyProgress, optimisers, scaler, reports)
            begin_momenta(optimisers["weights"])
        decay = None
        if settings.policy_decay_lr_freq is not None:
            decay = (settings.policy_decay_lr_freq, settings.policy_decay_lr_rate)
        taken = progress.weight_steps_taken(weight_steps)
        soft = not settings.hard_sampling  # soft gates take a share of every block
        net, weight_update = net_and_update(run.net, uses_all_weights=soft, in_backward=settings.step_in_backward)
        return cls(
            weight_steps,
            policy_steps,
            net,
            weight_update,
            optimisers["weights"],
            StepDecay(optimisers["weights"], heads=decay, backbone=decay, steps=taken),
            optimisers["policy"],
            scaler,
            reports["weights"],
            reports["policy"],
            progress,
        )

    def state(self, run: Run) -> dict[str, Any]:
        """All that learning needs; `temp` is the release's name for the temperature."""
        return {
            "optimisers": {"weights": self.weight_optimiser.state_dict(), "policy": self.policy_optimiser.state_dict()},
            "scaler": self.scaler.state_dict(),
            "reports": {"weights": self.weight_reports.unreported(), "policy": self.policy_reports.unreported()},
            "open_blocks": self.progress.num_open,
            "temp": self.progress.temperature,
        }

    def logged_state(self) -> dict[str, float]:
        """What changes from period to period, for the log."""
        return {
            "temperature": self.progress.temperature,
            "open_blocks": self.progress.num_open,
            **learning_rates(self.weight_optimiser),
            **learning_rates(self.policy_optimiser),
        }


def learn_policy(
    run: Run, curriculum: Curriculum, regularisers: Regularisers, stopped: StoppedRun | None
) -> ScoredEvaluation:
    """Phase 2: periods of weight steps on `train1`, an evaluation, then policy steps on `train2`.

    After each period the temperature decays and the curriculum may open one more block. Saves `latest` every
    `save_freq` iterations, and `best`, weights and logits, by the score of sampled gates. Goes on from `stopped`.

    Returns:
        The evaluation of `best`.
    """
    settings = run.settings
    learning = PolicyLearning.start(run, curriculum, stopped)
    progress = learning.progress
    weight_steps, policy_steps = learning.weight_steps, learning.policy_steps
    taken = progress.weight_steps_taken(weight_steps), progress.policy_steps_taken(policy_steps, weight_steps)
    train1 = run.data.training("train1", settings.batch_size, start=taken[0])
    train2 = run.data.training("train2", settings.batch_size, start=taken[1])
    best_from = warm_up_end(run) + curriculum.periods * (weight_steps + policy_steps)
    with saved_when_interrupted(run, learning):
        if not stopped:
            learning.save_latest(run)
        elif progress.best and progress.best.iteration < best_from and progress.iteration < settings.total_iters:
            progress.best = None  # it was, of a run that was to end before any could be
        elif progress.best:
            done_by_first(write_policy, run, *best_policy(run))  # a crash may have come between `best` and its policy
        # A stop may lie anywhere in a period; whatever of it was done before is not done again.
        while progress.iteration < settings.total_iters or progress.position > 0:
            if progress.position == 0:
                progress.num_open = curriculum.num_open(progress.period)
            take_weight_steps(run, learning, train1)
            if progress.position <= weight_steps:
                evaluate_period(run, learning, best_from)
                if progress.iteration >= settings.total_iters:
                    break
            take_policy_steps(run, learning, train2, regularisers)
            if progress.position < weight_steps + policy_steps:  # a longer run would go on with this period
                break
            end_period(run, learning)
        if progress.lacks_best:
            run.logger.message(
                f"training ended before iteration {best_from}, when the curriculum would have been over and an "
                "evaluation could be best: the final state becomes best"
            )
            keep_final_as_best(run, learning)
        learning.save_latest(run)
    return progress.best


def take_weight_steps(run: Run, learning: PolicyLearning, batches: BatchStream) -> None:
    """The period's updates of the weights, each under newly drawn gates; the logits stay as they are."""
    policy, progress, hard = run.net.policy, learning.progress, run.settings.hard_sampling

    def step(batch: Batch) -> dict[str, Tensor]:
        gates = draw_constant_gates(policy, progress.temperature, progress.num_open, hard)
        optimiser, scaler, update = learning.weight_optimiser, learning.scaler, learning.weight_update
        return weight_step(learning.net, gates, batch, run.tasks, run.loss_weights, optimiser, scaler, update)

    training_mode(run.net, run.fix_bn)
    for _ in period_iterations(run, learning, learning.weight_steps, "weights"):
        losses = attempt(run, progress, next(batches), step)
        progress.position += 1
        if losses:
            learning.weight_reports.add(progress.iteration, losses, learning.logged_state())
        learning.weight_decay.step()
        run.interruption.check()
        learning.save_now_and_then(run)
    learning.weight_reports.report(progress.iteration)


def take_policy_steps(run: Run, learning: PolicyLearning, batches: BatchStream, regularisers: Regularisers) -> None:
    """The period's updates of the logits, each through newly drawn gates; the weights stay as they are."""
    policy, progress = run.net.policy, learning.progress
    draw_gates = policy.draw_hard_gates if run.settings.hard_sampling else policy.draw_gates

    def step(batch: Batch) -> dict[str, Tensor]:
        gates = common_gates(draw_gates(progress.temperature, progress.num_open, common_noise))
        on_logits = regularisers(dict(policy.logits.items()), progress.num_open)
        optimiser, scaler = learning.policy_optimiser, learning.scaler
        return policy_step(run.net, gates, batch, run.tasks, run.loss_weights, on_logits, optimiser, scaler)

    training_mode(run.net, run.fix_bn)
    for _ in period_iterations(run, learning, learning.weight_steps + learning.policy_steps, "policy"):
        losses = attempt(run, progress, next(batches), step)
        progress.position += 1
        if losses:
            learning.policy_reports.add(progress.iteration, losses, learning.logged_state())
        run.interruption.check()
        learning.save_now_and_then(run)
    learning.policy_reports.report(progress.iteration)


def period_iterations(run: Run, learning: PolicyLearning, until: int, title: str) -> Iterator[int]:
    """The iterations up to a position in the period, or fewer where training ends, under a bar over all of them."""
    progress, total = learning.progress, run.settings.total_iters
    first, last = progress.iteration + 1, min(progress.iteration + until - progress.position, total)
    return run.logger.progress(range(first, last + 1), f"period {progress.period}, {title}", total)


def evaluate_period(run: Run, learning: PolicyLearning, best_from: int) -> None:
    """Evaluate what the period's weight steps have led to, unless that was done before a stop."""
    progress = learning.progress
    if not progress.is_evaluated:
        progress.evaluated = evaluate_sample(run, progress)
        if progress.iteration >= best_from and progress.evaluated.is_better_than(progress.best):
            keep_as_best(run, learning, progress.evaluated)


def end_period(run: Run, learning: PolicyLearning) -> None:
    """Report the policy; the temperature decays."""
    progress = learning.progress
    report_policy(run, progress)
    progress.temperature *= run.settings.decay_temp
    progress.period += 1
    progress.position = 0


@torch.no_grad()
def draw_constant_gates(policy: Policy, temperature: float, num_open: int, hard: bool) -> Gates:
    """Gates for a weight step; hard ones as numbers, so that no skipped block is computed."""
    draw_gates = policy.draw_hard_gates if hard else policy.draw_gates
    gates = common_gates(draw_gates(temperature, num_open, common_noise))
    return decided(gates) if hard else gates


def evaluate_sample(run: Run, progress: PolicyProgress) -> ScoredEvaluation:
    """Evaluate one architecture sampled from the policy; closed blocks are executed by all."""
    seed = derived_seed(run.data.seed, progress.iteration)
    return run.evaluate(run.net.policy.sample_architecture(seed, progress.num_open), progress.iteration)


def keep_final_as_best(run: Run, learning: PolicyLearning) -> None:
    """Make the state that training ended with `best`."""
    progress = learning.progress
    if not progress.is_evaluated:
        progress.evaluated = evaluate_sample(run, progress)
    keep_as_best(run, learning, progress.evaluated)


def keep_as_best(run: Run, learning: PolicyLearning, scored: ScoredEvaluation) -> None:
    """Save weights and logits as `best`, and the policy as a file and a picture."""
    progress = learning.progress
    progress.best = scored
    learning.save(run, run.checkpoints.best)
    done_by_first(write_policy, run, run.net.policy, progress.iteration, progress.num_open)


def best_policy(run: Run) -> tuple[Policy, int, int]:
    """The policy in `best`, its iteration and its open blocks."""
    content = load_checkpoint(run.checkpoints.best)
    policy = deepcopy(run.net.policy)
    prefix = "policy."
    logits = {key[len(prefix) :]: value for key, value in content["mtl-net"].items() if key.startswith(prefix)}
    load_weights(policy, logits, run.checkpoints.best)
    return policy, content["iter"], content["open_blocks"]


def write_policy(run: Run, policy: Policy, iteration: int, num_open: int) -> None:
    """Write the execution probabilities of `best`, task -> one per block, as `policy.json` and `policy.png`."""
    probabilities = policy.execution_probabilities(num_open)
    write_json(
        run.files.results / "policy.json",
        {
            "checkpoint": "best",
            "iteration": iteration,
            "open_blocks": num_open,
            "execution_probability": probabilities,
        },
    )
    save_shares(run.files.results / "policy.png", probabilities, f"P(execute) at iteration {iteration}")


def report_policy(run: Run, progress: PolicyProgress) -> None:
    """Log P(execute) of every task and block, with a picture in text."""
    probabilities = run.net.policy.execution_probabilities(progress.num_open)
    run.logger.scalars(
        "execution_probability",
        progress.iteration,
        {
            f"{task}/block{block:02d}": probability
            for task, row in probabilities.items()
            for block, probability in enumerate(row, start=1)
        },
    )
    run.logger.message(
        f"iteration {progress.iteration}: P(execute) after policy period {progress.period + 1}, "
        f"last {progress.num_open} of {run.net.num_blocks} blocks open, temperature {progress.temperature:.3f}\n"
        f"{format_shares(probabilities)}"
    )
