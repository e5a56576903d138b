"""Pictures of predictions beside the image and, where there is one, the ground truth."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataloaders.transforms import image_from_input
from envs.losses import Batch
from envs.tasks import Task
from models.shared_paths import Gates
from utils.modes import evaluation_mode
from utils.pictures import RGB, save_sheet


@torch.inference_mode()
def picture_predictions(
    net: nn.Module, gates: Gates, batches: Iterable[Batch], tasks: Mapping[str, Task], folder: Path, prefix: str
) -> list[Path]:
    """Save `{prefix}_{number}_{name}.png` for every image: its predictions, and above them the truth, if there is one.

    Predictions are resized bilinearly to the image. Returns the files.
    """
    written = []
    for batch in batches:
        with evaluation_mode(net):
            predictions = net(batch["img"], gates)
        for index, name in enumerate(batch["name"]):
            image = batch["img"][index]
            seen = {"image": image_from_input(image.cpu().numpy())}
            true = true_pictures(batch, index, tasks)
            predicted = predicted_pictures(predictions, index, image.shape[-2:], tasks)
            rows = [seen | true, {"": None} | predicted] if true else [seen | predicted]
            path = folder / f"{prefix}_{len(written):03d}_{name}.png"
            save_sheet(path, rows, name)
            written.append(path)
    return written


def true_pictures(batch: Batch, index: int, tasks: Mapping[str, Task]) -> dict[str, RGB]:
    """The targets of one image as colours; empty for images without targets."""
    return {
        f"true {task.title}": task.picture(batch[task.target][index].cpu().numpy())
        for task in tasks.values()
        if task.target in batch
    }


def predicted_pictures(
    predictions: Mapping[str, Tensor], index: int, size: tuple[int, int], tasks: Mapping[str, Task]
) -> dict[str, RGB]:
    """The predictions for one image as colours, at `size` (height, width)."""
    pictures = {}
    for name, task in tasks.items():
        resized = F.interpolate(predictions[name][index : index + 1].float(), size=size, mode="bilinear")
        pictures[task.title] = task.picture(task.to_target(resized)[0].cpu().numpy())
    return pictures
