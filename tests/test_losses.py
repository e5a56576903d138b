"""Losses: the release's numbers, what is valid and what is not, classes against NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.losses import classification_loss, normal_loss
from envs.task_sets import build_tasks
from envs.tasks import CLASS_WEIGHTED_SEGMENTATION, DEPTH, EDGES, KEYPOINTS, SEGMENTATION, SURFACE_NORMALS, Task
from tests.metric_inputs import (
    CLASS_FACTORS,
    PARITY,
    parity_batch,
    parity_predictions,
    random_batch,
    random_predictions,
    spoilt,
    without_valid_pixels,
)

MAPS = [SEGMENTATION, CLASS_WEIGHTED_SEGMENTATION, SURFACE_NORMALS, DEPTH, KEYPOINTS, EDGES]
every_map = pytest.mark.parametrize("task", MAPS, ids=lambda task: f"{task.title}-{task.headline}")


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("dataset", PARITY)
def test_the_releases_numbers(dataset: str, index: int) -> None:
    expected = PARITY[dataset]
    batch, predictions = parity_batch(dataset, index), parity_predictions(dataset, index)
    if dataset == "Taskonomy":
        # The release's loss counts every pixel, measured or not: ours equals it where the mask is True throughout.
        batch["normal_valid"] = torch.ones_like(batch["normal_valid"])
    tasks = build_tasks(dataset, expected["tasks"], expected["num_classes"])
    losses = {name: task.loss(predictions[name], batch).value.item() for name, task in tasks.items()}
    assert losses == pytest.approx(expected["losses_per_batch"][index], rel=1e-4)


def test_taskonomys_normals_are_learned_where_they_were_measured() -> None:
    batch, prediction = parity_batch("Taskonomy", 0), parity_predictions("Taskonomy", 0)["sn"]
    # The target's pixels that nearest-neighbour resizing to 5x7 keeps: the first of each 8x8.
    normal, measured = batch["normal"][..., ::8, ::8].numpy(), batch["normal_valid"][:, 0, ::8, ::8].numpy()
    dot = (prediction.numpy() * normal).sum(1)
    cosine = dot / np.linalg.norm(prediction, axis=1) / np.linalg.norm(normal, axis=1)
    assert 0 < measured.mean() < 1
    assert normal_loss(prediction, batch).value.item() == pytest.approx(1 - cosine[measured].mean(), rel=1e-5)


@every_map
def test_no_valid_pixel_is_a_zero_that_keeps_the_graph(task: Task) -> None:
    prediction = random_predictions(9)[task.name].requires_grad_()
    loss = task.loss(prediction, without_valid_pixels(random_batch(9))).value
    (loss * 1e6).backward()  # as large as a weight of the loss and a scale of gradients may be together
    assert loss.item() == 0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@every_map
def test_only_valid_pixels_have_a_gradient(task: Task) -> None:
    prediction = random_predictions(10, size=(24, 40))[task.name].requires_grad_()
    batch = random_batch(10)
    task.loss(prediction, spoilt(batch)).value.backward()
    valid = batch["seg"][:, None] != 255 if task.target == "seg" else batch[f"{task.target}_valid"]
    moved = (prediction.grad != 0).any(dim=1, keepdim=True)
    assert prediction.grad.isfinite().all()
    assert torch.equal(moved, valid)


def test_the_length_of_a_normal_does_not_matter() -> None:
    prediction, batch = random_predictions(11)["sn"], random_batch(11)
    longer = batch | {"normal": 7 * batch["normal"]}
    assert normal_loss(3 * prediction, longer).value.item() == pytest.approx(
        normal_loss(prediction, batch).value.item()
    )


def test_class_weights_make_a_weighted_mean() -> None:
    prediction, batch = random_predictions(12, size=(24, 40))["seg"], random_batch(12)
    labelled = (batch["seg"] != 255).numpy()
    logits, classes = prediction.movedim(1, -1).numpy()[labelled], batch["seg"].numpy()[labelled]
    errors = -np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[np.arange(len(classes)), classes]
    factors = CLASS_FACTORS.numpy()[classes]
    loss = CLASS_WEIGHTED_SEGMENTATION.loss(prediction, batch).value.item()
    assert loss == pytest.approx((factors * errors).sum() / factors.sum(), rel=1e-5)
    assert loss != pytest.approx(errors.mean(), rel=1e-3)


class TestClassification:
    @staticmethod
    def logits_and_classes(num_classes: int = 345) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(13)
        return torch.randn(8, num_classes, generator=random), torch.randint(num_classes, (8,), generator=random)

    def test_against_numpy(self) -> None:
        logits, classes = self.logits_and_classes()
        likelihood = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
        expected = -np.log(likelihood[np.arange(8), classes.numpy()]).mean()
        batch = {"sketch": classes, "clipart": 1 - classes}
        assert classification_loss(logits, batch, "sketch").value.item() == pytest.approx(expected, rel=1e-5)

    def test_class_255_is_a_class_like_any_other(self) -> None:
        logits, _ = self.logits_and_classes()
        loss = classification_loss(logits.requires_grad_(), {"sketch": torch.full((8,), 255)}, "sketch").value
        loss.backward()
        assert loss.item() > 1
        assert (logits.grad[:, 255] < 0).all()
