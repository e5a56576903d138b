"""Our ways to do the work: each is a name and the keys of the configuration that make it.

A new one is a line in `VARIANTS`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch.optim import Optimizer

from benchmarks.baseline import Baseline
from benchmarks.implementation import LEARNING_RATE, Implementation, Training
from benchmarks.settings import Settings
from benchmarks.work import Work, seed_weights
from envs.experiment import configured_network
from envs.optimisers import loss_scaler, policy_optimiser, warm_up_optimiser, weight_optimiser
from envs.steps import policy_step, weight_step
from envs.updates import net_and_update
from models.inference import prepare_for_inference
from models.multitask import MultiTaskNet
from models.shared_paths import HardGates
from utils.precision import computing_in


@dataclass(frozen=True)
class Variant(Implementation):
    """Shared paths, trained by the project's own steps and optimisers.

    Attributes:
        values: what the configuration says, as `--set` takes it.
        devices: types of devices on which it is measured.
        tests: whether it is also measured in testing; what concerns the backward pass alone is not.
    """

    name: str
    values: tuple[str, ...] = ()
    rate: str = "fp32"
    compiling_passes: int = 0
    devices: tuple[str, ...] = ("cpu", "cuda")
    tests: bool = True

    @property
    def returns_memory(self) -> bool:
        """Where memory is what counts, as `prepare_to_train` has it."""
        return set(CHECKPOINTING) <= set(self.values)

    def build(self, work: Work, device: torch.device) -> MultiTaskNet:
        """The network of the work under the variant's values; see `Implementation`."""
        config = work.with_values(*self.values).config
        return seed_weights(configured_network(config, work.tasks)).to(device)

    def prepare_test(self, net: MultiTaskNet, gates: HardGates) -> MultiTaskNet:
        """As test.py prepares it."""
        return prepare_for_inference(net, gates, "inductor" if COMPILED in self.values else None)

    def computing(self, net: MultiTaskNet) -> AbstractContextManager:
        """The network's precision."""
        return computing_in(net.precision, next(net.parameters()).device)

    def full_training(self, net: MultiTaskNet, work: Work) -> Training:
        """As `envs.weight_training` trains."""
        return self._weight_training(net, work, warm_up_optimiser(net, LEARNING_RATE, LEARNING_RATE))

    def alternate_training(self, net: MultiTaskNet, work: Work) -> Training:
        """As `envs.policy_learning` trains the weights."""
        return self._weight_training(net, work, weight_optimiser(net, LEARNING_RATE, LEARNING_RATE))

    def policy_training(self, net: MultiTaskNet, work: Work) -> Training:
        """As `envs.policy_learning` trains the logits."""
        return own_training(policy_step, net, work, policy_optimiser(net, LEARNING_RATE))

    def _weight_training(self, net: MultiTaskNet, work: Work, optimiser: Optimizer) -> Training:
        settings = work.with_values(*self.values).config.train
        net, update = net_and_update(net, uses_all_weights=True, in_backward=settings.step_in_backward)
        return own_training(partial(weight_step, update=update), net, work, optimiser)


def own_training(step: Callable[..., object], net: MultiTaskNet, work: Work, optimiser: Optimizer) -> Training:
    """Steps of the network on the losses of the work."""
    on_losses = {"tasks": work.tasks, "loss_weights": work.loss_weights}
    return Training(optimiser, partial(step, net, **on_losses, optimiser=optimiser, scaler=loss_scaler(net)))


BASELINE = Baseline("baseline", "fp32")
BASELINE_TF32 = Baseline("baseline, tf32", "tf32")
"""What PyTorch does by default in the convolutions of a GPU."""

BF16, CHECKPOINTING = ("train.precision=bf16",), ("train.checkpointing=True",)
IN_BACKWARD = ("train.step_in_backward=True",)
COMPILED = "train.compile=True"
LEAST_MEMORY = "fp32, least memory"

FP32 = Variant("fp32")

VARIANTS = (
    FP32,
    Variant("fp32, checkpointing", CHECKPOINTING, tests=False),
    Variant(LEAST_MEMORY, (*CHECKPOINTING, *IN_BACKWARD), tests=False),
    Variant("tf32", ("train.tf32=True",), "tf32", devices=("cuda",)),
    Variant("bf16", BF16, "bf16"),
    Variant("bf16, checkpointing", (*BF16, *CHECKPOINTING), "bf16", tests=False),
    Variant("bf16, least memory", (*BF16, *CHECKPOINTING, *IN_BACKWARD), "bf16", tests=False),
    Variant("bf16, compiled", (*BF16, COMPILED), "bf16", compiling_passes=4, devices=("cuda",)),
    Variant("fp16", ("train.precision=fp16",), "fp16", devices=("cuda",)),
)

IMPLEMENTATIONS: dict[str, Implementation] = {way.name: way for way in (BASELINE, BASELINE_TF32, *VARIANTS)}
"""Name -> implementation; the baseline first."""


def baselines(device: torch.device) -> list[Baseline]:
    """Those that are measured on a device; ratios are to the first, in float32."""
    return [BASELINE] if device.type == "cpu" else [BASELINE, BASELINE_TF32]


def measured_variants(settings: Settings) -> list[Variant]:
    """Those that are measured on the settings' device."""
    return [
        variant
        for variant in VARIANTS
        if settings.device.type in variant.devices and variant.rate not in settings.slow_rates
    ]
