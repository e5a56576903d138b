"""Pictures of predictions beside the image and, where there is one, the ground truth."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataloaders.domainnet import image_from_input as image_from_normalised
from dataloaders.transforms import image_from_input
from envs.batches import ClassNames, gates_of_present
from envs.losses import Batch
from envs.tasks import Task
from models.shared_paths import Gates
from utils.modes import evaluation_mode
from utils.pictures import RGB, save_sheet

Rows = list[dict[str, RGB | None]]
"""Of a sheet: caption -> picture, None for an empty place."""


@torch.inference_mode()
def picture_predictions(
    net: nn.Module,
    gates: Gates,
    batches: Iterable[Batch],
    tasks: Mapping[str, Task],
    folder: Path,
    prefix: str,
    class_names: ClassNames,
) -> list[Path]:
    """Save `{prefix}_{number}_{name}.png` for every image, and return the files.

    Maps stand below the truth, if there is one, resized bilinearly to the image. Classes stand in the caption of the
    image; where every task has an image of its own, a sheet shows one of each. Texts have no picture.
    """
    written: list[Path] = []
    for batch in batches:
        if "img" not in batch:
            return []
        with evaluation_mode(net):
            predictions = net(batch["img"], gates_of_present(gates, batch["img"]))
        for name, rows in sheets(batch, predictions, tasks, class_names):
            path = folder / f"{prefix}_{len(written):03d}_{name}.png"
            save_sheet(path, rows, name)
            written.append(path)
    return written


def sheets(
    batch: Batch, predictions: Mapping[str, Tensor], tasks: Mapping[str, Task], class_names: ClassNames
) -> Iterator[tuple[str, Rows]]:
    """Name and rows of every sheet of a batch."""
    if isinstance(batch["name"], dict):
        # Tasks with images of their own run out one after the other; the first one left gives the name.
        for index in range(max(map(len, predictions.values()))):
            present = [task for task, prediction in predictions.items() if index < len(prediction)]
            images = {task: batch["img"][task][index] for task in present}
            yield batch["name"][present[0]][index], classified(images, batch, index, predictions, class_names)
        return
    for index, name in enumerate(batch["name"]):
        image = batch["img"][index]
        if all(task.per_pixel for task in tasks.values()):
            yield name, mapped(image, batch, index, predictions, tasks)
        else:
            yield name, classified(dict.fromkeys(tasks, image), batch, index, predictions, class_names)


def mapped(
    image: Tensor, batch: Batch, index: int, predictions: Mapping[str, Tensor], tasks: Mapping[str, Task]
) -> Rows:
    """An image, the true maps where they are known, and the predicted ones."""
    seen = {"image": image_from_input(image.cpu().numpy())}
    true = true_pictures(batch, index, tasks)
    predicted = predicted_pictures(predictions, index, image.shape[-2:], tasks)
    return [seen | true, {"": None} | predicted] if true else [seen | predicted]


def classified(
    images: Mapping[str, Tensor],
    batch: Batch,
    index: int,
    predictions: Mapping[str, Tensor],
    class_names: ClassNames,
) -> Rows:
    """The image of every task, with the predicted class in its caption."""
    return [
        {
            class_caption(batch, index, task, predictions[task], class_names): image_from_normalised(
                image.cpu().numpy()
            )
            for task, image in images.items()
        }
    ]


def class_caption(batch: Batch, index: int, task: str, prediction: Tensor, class_names: ClassNames) -> str:
    """`real: dog (82 %), true: horse`, for one image and task."""
    names = class_names.get(task, {})
    probability, predicted = prediction[index].float().softmax(dim=0).max(dim=0)
    caption = f"{task}: {names.get(int(predicted), int(predicted))} ({probability:.0%})"
    if task not in batch:
        return caption
    true = int(batch[task][index])
    return f"{caption}, true: {names.get(true, true)}"


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
