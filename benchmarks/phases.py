"""The phases as passes to be measured: a step of warm-up, weights, policy or retraining, a test, the heads alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.implementation import Implementation, Training
from benchmarks.measure import Parts, Pass, Stopwatch
from benchmarks.work import Work
from envs.experiment import regularisers
from envs.policy_learning import draw_constant_gates
from models.shared_paths import Gates, all_blocks


@dataclass(frozen=True)
class Phase:
    """What a pass does.

    Attributes:
        name: "warm-up", "weights", "policy", "retraining", "test" or "heads".
        num_open: in policy learning, the blocks that the curriculum has opened.
    """

    name: str
    num_open: int | None = None

    @property
    def title(self) -> str:
        """For tables and progress bars."""
        return self.name if self.num_open is None else f"{self.name}, {self.num_open} open"


class Bench:
    """A network of one implementation with a batch, on which its phases are measured."""

    def __init__(self, work: Work, way: Implementation, device: torch.device) -> None:
        self.work = work
        self.way = way
        self.device = device
        self.net = way.build(work, device)
        self.batch = work.batch(device)

    def prepare(self, phase: Phase) -> Pass:
        """A pass of a phase, with an optimiser of its own where it trains."""
        preparations = {
            "warm-up": self.warm_up,
            "weights": partial(self.weights, phase.num_open),
            "policy": partial(self.policy, phase.num_open),
            "retraining": self.retraining,
            "test": self.test,
            "heads": self.heads,
        }
        return preparations[phase.name]()

    def warm_up(self) -> Pass:
        """A step of the weights while every task executes every block."""
        gates = all_blocks(self.work.tasks, self.net.num_blocks)
        return self._weight_steps(self.way.full_training(self.net, self.work), lambda: gates)

    def retraining(self) -> Pass:
        """A step of the weights under fixed gates."""
        return self._weight_steps(self.way.full_training(self.net, self.work), self.work.gates)

    def weights(self, num_open: int) -> Pass:
        """A step of the weights under soft gates that are newly drawn for the open blocks."""
        temperature = self.work.config.train.init_temp

        def draw() -> Gates:
            return draw_constant_gates(self.net.policy, temperature, num_open, hard=False)

        return self._weight_steps(self.way.alternate_training(self.net, self.work), draw)

    def policy(self, num_open: int) -> Pass:
        """A step of the logits through soft gates that are newly drawn for the open blocks."""
        config, policy = self.work.config, self.net.policy
        training = self.way.policy_training(self.net, self.work)
        losses_on_logits = regularisers(config, policy)

        def step() -> None:
            gates = policy.draw_gates(config.train.init_temp, num_open)
            on_logits = losses_on_logits(dict(policy.logits.items()), num_open)
            training.step(gates, self.batch, regularisers=on_logits)

        return self._training_pass(training.optimiser, step)

    def test(self) -> Pass:
        """The prediction of one image under fixed gates."""
        gates, image = self.work.gates(), self.work.test_image(self.device)
        prepared = self.way.prepare_test(self.net, gates)

        @torch.no_grad()  # not inference_mode, in which PyTorch 2.4 counts no operations
        def one_pass() -> Parts:
            self.way.switch()
            watch = Stopwatch(self.device)
            prepared(image, gates)
            return watch.parts()

        return one_pass

    def heads(self) -> Pass:
        """Forward and backward pass of the heads alone."""
        net = self.net.train()
        features = features_before_heads(net, self.batch["img"])

        def one_pass() -> Parts:
            self.way.switch()
            watch = Stopwatch(self.device)
            with self.way.computing(net):
                predictions = [net.heads[task](x) for task, x in features.items()]
            watch.mark("forward")
            sum(prediction.float().mean() for prediction in predictions).backward()
            watch.mark("backward")
            parts = watch.parts()
            net.zero_grad()
            for x in features.values():
                x.grad = None
            return parts

        return one_pass

    def _weight_steps(self, training: Training, draw: Callable[[], Gates]) -> Pass:
        return self._training_pass(training.optimiser, lambda: training.step(draw(), self.batch))

    def _training_pass(self, optimiser: Optimizer, step: Callable[[], None]) -> Pass:
        def one_pass() -> Parts:
            self.way.switch()
            self.net.train()
            watch = Stopwatch(self.device)
            with marking(watch, self.net, optimiser):
                step()
            parts = watch.parts()
            # The next contender has the memory.
            optimiser.zero_grad()
            return parts

        return one_pass


@contextmanager
def marking(watch: Stopwatch, net: nn.Module, optimiser: Optimizer) -> Iterator[None]:
    """Let a step mark its parts: the forward pass; losses, backward pass and what is asked of them; the optimiser."""
    hooks = [
        net.register_forward_hook(lambda *_: watch.mark("forward")),
        optimiser.register_step_pre_hook(lambda *_: watch.mark("backward")),
        optimiser.register_step_post_hook(lambda *_: watch.mark("optimiser")),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def features_before_heads(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What the heads receive for images where every task executes every block: task -> leaf [N, C, h, w]."""
    features: dict[str, Tensor] = {}

    def remember(task: str, head: nn.Module, received: tuple[Tensor]) -> None:
        features[task] = received[0].detach().requires_grad_()

    hooks = [head.register_forward_pre_hook(partial(remember, task)) for task, head in net.heads.items()]
    with torch.no_grad():
        net(image, all_blocks(net.heads, net.num_blocks))
    for hook in hooks:
        hook.remove()
    return features
