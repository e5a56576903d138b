"""Phases 1 and 2: warm up the weights, then learn weights and policy in turns (paper section 3, algorithm 1)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from envs.data import BatchStream
from envs.optimisers import learning_rates, policy_optimiser, step_decay, weight_optimiser
from envs.run import Run, ScoredEvaluation, StepReports
from envs.steps import policy_step, training_mode, weight_step
from envs.weight_training import WeightTraining, train_weights
from models.policy import Curriculum, Policy
from models.shared_paths import Gates, all_blocks, decided
from utils.devices import derived_seed
from utils.tables import format_shares

Regularisers = Callable[[dict[str, Tensor], int], dict[str, Tensor]]
"""(logits, open blocks) -> the named losses on the logits that are switched on."""


def warm_up(run: Run) -> None:
    """Phase 1: train the weights while every task executes every block; saves `warmup`."""
    gates = all_blocks(run.tasks, run.net.num_blocks)
    training = WeightTraining.start(run)
    # Iterations count from 1 and the policy phase begins with number `warm_up_iters` (release).
    train_weights(run, training, gates, run.settings.warm_up_iters - 1, "warm-up", latest="latest", best=None)
    training.save(run, "warmup")
    run.logger.message(f"warm-up finished, saved {run.files.checkpoint('warmup')}")


def train_without_policy(run: Run) -> ScoredEvaluation:
    """Hard parameter sharing (`policy: False`): every task executes every block, to the end; saves `best`."""
    gates = all_blocks(run.tasks, run.net.num_blocks)
    training = WeightTraining.start(run)
    train_weights(run, training, gates, run.settings.total_iters, "training", latest="latest", best="best")
    return training.best


@dataclass
class PolicyLearning:
    """What learns the policy, and how far it has come.

    Attributes:
        iteration: the last finished one; warm-up's count too.
        period: p, the number of finished periods of weight and policy steps.
        temperature: tau of Gumbel-Softmax.
        best: the best evaluation since every block follows the policy.
    """

    weights: Optimizer
    weights_decay: LRScheduler
    logits: Optimizer
    iteration: int
    temperature: float
    period: int = 0
    best: ScoredEvaluation | None = field(default=None)

    @classmethod
    def start(cls, run: Run) -> "PolicyLearning":
        """New optimisers for both kinds of parameters (release)."""
        settings = run.settings
        weights = weight_optimiser(run.net, settings.heads_lr, settings.backbone_lr)
        decay = None
        if settings.policy_decay_lr_freq is not None:
            decay = (settings.policy_decay_lr_freq, settings.policy_decay_lr_rate)
        policy_lr = settings.policy_lr if settings.init_method == "all_chosen" else 0.01
        return cls(
            weights,
            step_decay(weights, heads=decay, backbone=decay),
            policy_optimiser(run.net, policy_lr),
            iteration=max(settings.warm_up_iters - 1, 0),
            temperature=settings.init_temp,
        )

    def save(self, run: Run, label: str) -> None:
        """Save network, logits and training state under a label."""
        run.save(
            label,
            self.iteration,
            {"weights": self.weights, "policy": self.logits},
            {"weights": self.weights_decay},
            self.best,
            temp=self.temperature,
            period=self.period,
        )

    def state(self, num_open: int) -> dict[str, float]:
        """What changes from period to period, for the log."""
        return {
            "temperature": self.temperature,
            "open_blocks": num_open,
            **learning_rates(self.weights),
            **learning_rates(self.logits),
        }


def learn_policy(run: Run, curriculum: Curriculum, regularisers: Regularisers) -> ScoredEvaluation:
    """Phase 2: periods of weight steps on `train1`, an evaluation, then policy steps on `train2`.

    After each period the temperature decays and the curriculum may open one more block. Saves `latest` after
    the weight steps of each period, and `best`, weights and logits, by the score of sampled gates.

    Returns:
        The evaluation of `best`.
    """
    settings = run.settings
    learning = PolicyLearning.start(run)
    train1 = run.data.training("train1", settings.batch_size)
    train2 = run.data.training("train2", settings.batch_size)
    weight_steps = settings.weight_iter_alternate or train1.batches_per_pass
    policy_steps = settings.alpha_iter_alternate or train2.batches_per_pass
    best_from = learning.iteration + curriculum.periods * (weight_steps + policy_steps)
    weight_reports = StepReports(run.logger, "weights", settings.print_freq)
    policy_reports = StepReports(run.logger, "policy", settings.print_freq)
    while learning.iteration < settings.total_iters:
        num_open = curriculum.num_open(learning.period)
        take_weight_steps(run, learning, train1, weight_steps, num_open, weight_reports)
        keep_evaluated(run, learning, num_open, may_be_best=learning.iteration >= best_from)
        take_policy_steps(run, learning, train2, policy_steps, num_open, regularisers, policy_reports)
        learning.temperature *= settings.decay_temp
        learning.period += 1
        report_policy(run, learning, num_open)
    learning.save(run, "latest")
    if learning.best is None:
        run.logger.message(
            f"training ended before iteration {best_from}, when the curriculum has opened every block and an "
            "evaluation may be best: the final state becomes best"
        )
        keep_evaluated(run, learning, curriculum.num_open(learning.period), may_be_best=True)
    return learning.best


def take_weight_steps(
    run: Run, learning: PolicyLearning, batches: BatchStream, count: int, num_open: int, reports: StepReports
) -> None:
    """`count` updates of the weights, each under newly drawn gates; the logits stay as they are."""
    training_mode(run.net, run.fix_bn)
    for iteration in iterations(run, learning, count, "weights"):
        gates = draw_constant_gates(run.net.policy, learning.temperature, num_open, run.settings.hard_sampling)
        losses = weight_step(run.net, gates, next(batches), run.tasks, run.loss_weights, learning.weights)
        learning.weights_decay.step()
        learning.iteration = iteration
        reports.report(iteration, losses, run.loss_weights, learning.state(num_open))


def take_policy_steps(
    run: Run,
    learning: PolicyLearning,
    batches: BatchStream,
    count: int,
    num_open: int,
    regularisers: Regularisers,
    reports: StepReports,
) -> None:
    """`count` updates of the logits, each through newly drawn gates; the weights stay as they are."""
    training_mode(run.net, run.fix_bn)
    policy = run.net.policy
    draw_gates = policy.draw_hard_gates if run.settings.hard_sampling else policy.draw_gates
    for iteration in iterations(run, learning, count, "policy"):
        gates = draw_gates(learning.temperature, num_open)
        losses = policy_step(
            run.net,
            gates,
            next(batches),
            run.tasks,
            run.loss_weights,
            regularisers(dict(policy.logits.items()), num_open),
            learning.logits,
        )
        learning.iteration = iteration
        reports.report(iteration, losses, run.loss_weights, learning.state(num_open))


def iterations(run: Run, learning: PolicyLearning, count: int, title: str) -> Iterator[int]:
    """The next `count` iteration numbers, or fewer where training ends, with a progress bar over all of them."""
    first, last = learning.iteration + 1, min(learning.iteration + count, run.settings.total_iters)
    title = f"period {learning.period}, {title}"
    return run.logger.progress(range(first, last + 1), title, run.settings.total_iters)


@torch.no_grad()
def draw_constant_gates(policy: Policy, temperature: float, num_open: int, hard: bool) -> Gates:
    """Gates for a weight step; hard ones as numbers, so that no skipped block is computed."""
    if hard:
        return decided(policy.draw_hard_gates(temperature, num_open))
    return policy.draw_gates(temperature, num_open)


def keep_evaluated(run: Run, learning: PolicyLearning, num_open: int, may_be_best: bool) -> None:
    """Evaluate one architecture sampled from the policy, save `latest`, and `best` if nothing scored higher."""
    gates = run.net.policy.sample_architecture(derived_seed(run.data.seed, learning.iteration), num_open)
    scored = run.evaluate(gates, learning.iteration)
    if may_be_best and (learning.best is None or scored.score > learning.best.score):
        learning.best = scored
        learning.save(run, "best")
        run.write_policy(learning.iteration)
    learning.save(run, "latest")


def report_policy(run: Run, learning: PolicyLearning, num_open: int) -> None:
    """Log P(execute) of every task and block, with a picture in text."""
    probabilities = run.net.policy.execution_probabilities()
    run.logger.scalars(
        "execution_probability",
        learning.iteration,
        {
            f"{task}/block{block:02d}": probability
            for task, row in probabilities.items()
            for block, probability in enumerate(row, start=1)
        },
    )
    run.logger.message(
        f"iteration {learning.iteration}: P(execute) after policy period {learning.period}, "
        f"last {num_open} of {run.net.num_blocks} blocks open, temperature {learning.temperature:.3f}\n"
        f"{format_shares(probabilities)}"
    )
