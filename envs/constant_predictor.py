"""The least that a network must beat: for every task the best prediction that does not look at the image."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from envs.losses import Batch
from envs.tasks import Task
from models.multitask import Inputs
from models.shared_paths import Gates
from utils.distributed import all_gather_object
from utils.errors import UserError
from utils.progress import progress_bar

PIXELS_PER_IMAGE = 2000


class ConstantPredictor(nn.Module):
    """Predicts the same for every pixel of every image, or for every image or text; called like the network.

    Args:
        constants: task -> its prediction, [C, 1, 1] for every pixel, else [C].
    """

    def __init__(self, constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tasks = tuple(constants)
        for task, constant in constants.items():
            self.register_buffer(f"{task}_constant", constant)

    def forward(self, inputs: Inputs, gates: Gates) -> dict[str, Tensor]:
        """{task: [N, C, 1, 1], or [N, C]} for the tasks named in `gates`."""
        own = inputs if isinstance(inputs, dict) else dict.fromkeys(gates, inputs)
        constants = {task: getattr(self, f"{task}_constant") for task in gates}
        return {task: constant.expand(len(own[task]), *constant.shape) for task, constant in constants.items()}


def fit_constant_predictor(batches: Iterable[Batch], tasks: Mapping[str, Task]) -> ConstantPredictor:
    """Fit each task's constant, on the CPU, to about 2000 valid pixels, evenly spaced, of each training image.

    Several processes fit it together, each with the values of its own batches.

    Raises:
        UserError: a task has no valid pixel at all.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in tasks}
    for batch in progress_bar(batches, "constant predictor"):
        for name, task in tasks.items():
            if task.target in batch:
                valid = task.valid_values(batch)
                spacing = max(1, len(valid) // (PIXELS_PER_IMAGE * len(batch[task.target])))
                values[name].append(valid[::spacing].clone().cpu())  # so that the map is not kept
    constants = {}
    for name, task in tasks.items():
        of_images = [value for of_process in all_gather_object(values[name]) for value in of_process]
        if sum(map(len, of_images)) == 0:
            raise UserError(f"--constant: the train split has no valid pixel for task {name}; check its targets.")
        constants[name] = task.constant(torch.cat(of_images), task.num_channels)
    return ConstantPredictor(
        {name: constant[:, None, None] if tasks[name].per_pixel else constant for name, constant in constants.items()}
    )
