"""What the network looks at, in batches of either kind.

Tasks that share one image: `batch["img"]` [N, 3, H, W] and one entry per target. Tasks with inputs of their own
(domains, texts): `batch["img"]` or `batch["text"]` is {task: its inputs}, and a task whose samples have run out is
absent. Losses and metrics need not care: they look at the entry of their target.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor

from envs.losses import Batch
from models.multitask import Inputs
from models.shared_paths import Gates

ClassNames = Mapping[str, Mapping[int, str]]
"""task -> class number -> name, as far as the data tell."""


def inputs_of(batch: Batch) -> Inputs:
    """What `MultiTaskNet.forward` takes: images or texts, common to all tasks or {task: its own}."""
    return batch["img"] if "img" in batch else batch["text"]


def number_of_inputs(inputs: Inputs) -> int:
    """How many images or texts there are, of all tasks together."""
    return sum(map(len, inputs.values())) if isinstance(inputs, dict) else len(inputs)


def gates_of_present(gates: Gates, inputs: Inputs) -> Gates:
    """The gates of the tasks that have inputs in this batch."""
    return {task: gates[task] for task in gates if task in inputs} if isinstance(inputs, dict) else gates


def names_of(batch: Batch) -> list[str]:
    """The names of the samples, of all tasks together."""
    names = batch["name"]
    return [name for of_task in names.values() for name in of_task] if isinstance(names, dict) else list(names)


def tensors_of(inputs: Inputs) -> Iterator[Tensor]:
    """The tensors of inputs of either kind."""
    yield from inputs.values() if isinstance(inputs, dict) else [inputs]
