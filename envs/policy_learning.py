"""Phases 1 and 2: warm up the weights, then learn weights and policy in turns (paper section 3, algorithm 1)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from envs.data import BatchStream
from envs.optimisers import learning_rates, policy_optimiser, step_decay, weight_optimiser
from envs.run import Run, ScoredEvaluation
from envs.step_reports import StepReports
from envs.steps import policy_step, training_mode, weight_step
from envs.weight_training import WeightTraining, train_weights
from models.policy import Curriculum, Policy
from models.shared_paths import Gates, all_blocks, decided
from utils.devices import derived_seed
from utils.files import write_json
from utils.pictures import save_shares
from utils.tables import format_shares

Regularisers = Callable[[dict[str, Tensor], int], dict[str, Tensor]]
"""(logits, open blocks) -> the named losses on the logits that are switched on."""


def warm_up(run: Run) -> None:
    """Phase 1: train the weights while every task executes every block; saves `warmup`."""
    gates = all_blocks(run.tasks, run.net.num_blocks)
    training = WeightTraining.start(run, gates)
    # Iterations count from 1 and the policy phase begins with number `warm_up_iters` (release).
    train_weights(run, training, run.settings.warm_up_iters - 1, "warm-up", latest="latest", best=None)
    training.save(run, "warmup")
    run.logger.message(f"warm-up finished, saved {run.files.checkpoint('warmup')}")


def train_without_policy(run: Run) -> ScoredEvaluation:
    """Hard parameter sharing (`policy: False`): every task executes every block, to the end; saves `best`."""
    gates = all_blocks(run.tasks, run.net.num_blocks)
    training = WeightTraining.start(run, gates)
    train_weights(run, training, run.settings.total_iters, "training", latest="latest", best="best")
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

    weight_optimiser: Optimizer
    weight_decay: LRScheduler
    policy_optimiser: Optimizer
    iteration: int
    temperature: float
    period: int = 0
    best: ScoredEvaluation | None = None

    @classmethod
    def start(cls, run: Run) -> "PolicyLearning":
        """New optimisers for both kinds of parameters (release)."""
        settings = run.settings
        weights = weight_optimiser(run.net, settings.heads_lr, settings.backbone_lr)
        decay = None
        if settings.policy_decay_lr_freq is not None:
            decay = (settings.policy_decay_lr_freq, settings.policy_decay_lr_rate)
        return cls(
            weights,
            step_decay(weights, heads=decay, backbone=decay),
            policy_optimiser(run.net, settings.policy_lr),
            iteration=max(settings.warm_up_iters - 1, 0),
            temperature=settings.init_temp,
        )

    def save(self, run: Run, label: str, num_open: int) -> None:
        """Save network, logits and training state under a label."""
        run.save(
            label,
            self.iteration,
            {"weights": self.weight_optimiser, "policy": self.policy_optimiser},
            {"weights": self.weight_decay},
            self.best,
            temp=self.temperature,
            period=self.period,
            open_blocks=num_open,
        )

    def state(self, num_open: int) -> dict[str, float]:
        """What changes from period to period, for the log."""
        return {
            "temperature": self.temperature,
            "open_blocks": num_open,
            **learning_rates(self.weight_optimiser),
            **learning_rates(self.policy_optimiser),
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
    weight_reports = StepReports(run.logger, "weights", settings.print_freq, run.loss_weights)
    policy_reports = StepReports(run.logger, "policy", settings.print_freq, run.loss_weights)
    while learning.iteration < settings.total_iters:
        num_open = curriculum.num_open(learning.period)
        take_weight_steps(run, learning, train1, weight_steps, num_open, weight_reports)
        scored = evaluate_sample(run, learning, num_open)
        if learning.iteration >= best_from and scored.is_better_than(learning.best):
            keep_as_best(run, learning, scored, num_open)
        learning.save(run, "latest", num_open)
        if learning.iteration == settings.total_iters:
            break
        take_policy_steps(run, learning, train2, policy_steps, num_open, regularisers, policy_reports)
        report_policy(run, learning, num_open)
        learning.temperature *= settings.decay_temp
        learning.period += 1
    learning.save(run, "latest", num_open)
    if learning.best is None:
        run.logger.message(
            f"training ended before iteration {best_from}, when the curriculum has opened every block and an "
            "evaluation may be best: the final state becomes best"
        )
        if scored.iteration < learning.iteration:
            scored = evaluate_sample(run, learning, num_open)
        keep_as_best(run, learning, scored, num_open)
    return learning.best


def take_weight_steps(
    run: Run, learning: PolicyLearning, batches: BatchStream, count: int, num_open: int, reports: StepReports
) -> None:
    """`count` updates of the weights, each under newly drawn gates; the logits stay as they are."""
    training_mode(run.net, run.fix_bn)
    state = learning.state(num_open)
    for iteration in iterations(run, learning, count, "weights"):
        gates = draw_constant_gates(run.net.policy, learning.temperature, num_open, run.settings.hard_sampling)
        losses = weight_step(run.net, gates, next(batches), run.tasks, run.loss_weights, learning.weight_optimiser)
        state = learning.state(num_open)
        learning.weight_decay.step()
        learning.iteration = iteration
        reports.add(iteration, losses, state)
    reports.report(learning.iteration, state)


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
    state = learning.state(num_open)
    for iteration in iterations(run, learning, count, "policy"):
        losses = policy_step(
            run.net,
            draw_gates(learning.temperature, num_open),
            next(batches),
            run.tasks,
            run.loss_weights,
            regularisers(dict(policy.logits.items()), num_open),
            learning.policy_optimiser,
        )
        learning.iteration = iteration
        reports.add(iteration, losses, state)
    reports.report(learning.iteration, state)


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


def evaluate_sample(run: Run, learning: PolicyLearning, num_open: int) -> ScoredEvaluation:
    """Evaluate one architecture sampled from the policy; closed blocks are executed by all."""
    gates = run.net.policy.sample_architecture(derived_seed(run.data.seed, learning.iteration), num_open)
    return run.evaluate(gates, learning.iteration)


def keep_as_best(run: Run, learning: PolicyLearning, scored: ScoredEvaluation, num_open: int) -> None:
    """Save weights and logits as `best`, and the policy as a file and a picture."""
    learning.best = scored
    learning.save(run, "best", num_open)
    write_policy(run, learning.iteration, num_open)


def write_policy(run: Run, iteration: int, num_open: int) -> None:
    """Write the execution probabilities of `best`, task -> one per block, as `policy.json` and `policy.png`."""
    probabilities = run.net.policy.execution_probabilities(num_open)
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


def report_policy(run: Run, learning: PolicyLearning, num_open: int) -> None:
    """Log P(execute) of every task and block, with a picture in text."""
    probabilities = run.net.policy.execution_probabilities(num_open)
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
        f"iteration {learning.iteration}: P(execute) after policy period {learning.period + 1}, "
        f"last {num_open} of {run.net.num_blocks} blocks open, temperature {learning.temperature:.3f}\n"
        f"{format_shares(probabilities)}"
    )
