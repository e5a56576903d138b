"""The constant predictor: each task's best constant against NumPy, called and evaluated like a network."""

import numpy as np
import pytest
import torch

from envs.constant_predictor import PIXELS_PER_IMAGE, fit_constant_predictor
from envs.evaluation import evaluate
from envs.losses import Batch
from envs.task_sets import build_tasks
from envs.tasks import Task
from models.shared_paths import all_blocks
from utils.errors import UserError

NUM_CLASSES = 5
TASKS = build_tasks("NYU_v2", ["seg", "sn", "depth"], [NUM_CLASSES, 3, 1], "decoded")


def make_batch(seed: int, height: int = 20, width: int = 30) -> Batch:
    """Two images of skewed classes, normals that lean one way and a tail of far depths, a third of it invalid."""
    random = np.random.RandomState(seed)
    shape = (2, 1, height, width)
    seg = np.where(random.rand(2, height, width) < 0.3, 255, random.binomial(NUM_CLASSES - 2, 0.7, (2, height, width)))
    normal = random.normal((0.2, -0.4, 1.0), 0.5, (2, height, width, 3)).transpose(0, 3, 1, 2) * random.rand(*shape)
    return {
        "img": torch.zeros(2, 3, height, width),
        "seg": torch.from_numpy(seg).long(),
        "normal": torch.from_numpy(normal).float(),
        "normal_valid": torch.from_numpy(random.rand(*shape) < 0.7),
        "depth": torch.from_numpy(random.exponential(2.0, shape)).float(),
        "depth_valid": torch.from_numpy(random.rand(*shape) < 0.7),
        "name": [f"{seed}a", f"{seed}b"],
    }


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return [make_batch(seed) for seed in range(3)]


def of_tasks(*names: str) -> dict[str, Task]:
    return {name: TASKS[name] for name in names}


def fitted(batches: list[Batch], task: str) -> np.ndarray:
    """The constant of one task."""
    net = fit_constant_predictor(batches, of_tasks(task))
    return net(torch.zeros(1, 3, 4, 5), {task: []})[task].flatten().numpy()


def valid_pixels(batches: list[Batch], target: str) -> np.ndarray:
    """[M, C] of all batches."""
    pixels = [batch[target].numpy().transpose(0, 2, 3, 1)[batch[f"{target}_valid"].numpy()[:, 0]] for batch in batches]
    return np.concatenate(pixels)


def test_the_batches_are_small_enough_to_count_every_pixel(batches: list[Batch]) -> None:
    """Else NumPy would see other pixels than the fit."""
    assert all(batch["seg"].numel() <= 2 * PIXELS_PER_IMAGE for batch in batches)


def test_segmentation_predicts_the_frequencies_of_the_classes(batches: list[Batch]) -> None:
    classes = np.concatenate([batch["seg"].numpy().ravel() for batch in batches])
    counts = np.array([(classes == number).sum() for number in range(NUM_CLASSES)])
    assert counts[NUM_CLASSES - 1] == 0, "a class that never occurs keeps a finite logit"
    probabilities = np.exp(fitted(batches, "seg"))
    np.testing.assert_allclose(probabilities / probabilities.sum(), (counts + 1) / (counts + 1).sum(), rtol=1e-5)


def test_of_large_maps_no_more_is_kept_than_what_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr("envs.constant_predictor.all_gather_object", lambda values: kept.extend(values) or [values])
    fitted([make_batch(seed, height=100, width=200) for seed in range(2)], "sn")
    assert len(kept) == 2
    for values in kept:
        assert len(values) < 2.5 * 2 * PIXELS_PER_IMAGE
        assert values.untyped_storage().nbytes() == values.nbytes


def test_normals_point_in_the_mean_direction(batches: list[Batch]) -> None:
    normals = valid_pixels(batches, "normal").astype(np.float64)
    mean = (normals / np.linalg.norm(normals, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(fitted(batches, "sn"), mean / np.linalg.norm(mean), rtol=1e-4)


def test_depth_is_the_median(batches: list[Batch]) -> None:
    depths = valid_pixels(batches, "depth")[:, 0]
    (median,) = fitted(batches, "depth")
    lower = np.sort(depths)[(len(depths) - 1) // 2]  # of an even number, torch takes the lower middle
    assert median == lower
    assert abs(median - depths.mean()) > 0.3, "the mean would be another value"


def test_of_large_images_pixels_from_everywhere_are_taken() -> None:
    """Depth grows from top to bottom: a fit to the first pixels alone would be another one."""
    batch = make_batch(0, height=200, width=100)
    batch["depth"] = torch.linspace(1, 9, 200).view(1, 1, 200, 1).expand(2, 1, 200, 100).contiguous()
    batch["depth_valid"] = torch.ones(2, 1, 200, 100, dtype=torch.bool)
    assert fitted([batch], "depth") == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize(
    ("task", "invalid"),
    [
        ("seg", {"seg": torch.full((2, 20, 30), 255)}),
        ("sn", {"normal_valid": torch.zeros(2, 1, 20, 30, dtype=torch.bool)}),
        ("depth", {"depth_valid": torch.zeros(2, 1, 20, 30, dtype=torch.bool)}),
    ],
)
def test_a_task_without_any_valid_pixel_is_named(batches: list[Batch], task: str, invalid: Batch) -> None:
    unlabelled = [batch | invalid for batch in batches]
    with pytest.raises(UserError, match=rf"--constant: .*no valid pixel for task {task}"):
        fit_constant_predictor(unlabelled, TASKS)
    mixed = [*unlabelled, batches[0]]
    np.testing.assert_array_equal(fitted(mixed, task), fitted(batches[:1], task))


def test_it_predicts_the_tasks_asked_for_in_the_shape_of_a_prediction(batches: list[Batch]) -> None:
    net = fit_constant_predictor(batches, TASKS)
    predictions = net(torch.zeros(4, 3, 8, 8), all_blocks(["sn", "seg"], 0))
    assert {task: tuple(prediction.shape) for task, prediction in predictions.items()} == {
        "sn": (4, 3, 1, 1),
        "seg": (4, NUM_CLASSES, 1, 1),
    }


def test_it_is_evaluated_as_a_network_is(batches: list[Batch]) -> None:
    net = fit_constant_predictor(batches, TASKS)
    metrics = evaluate(net, all_blocks(TASKS, 0), batches, TASKS).metrics["standard"]
    classes = np.concatenate([batch["seg"].numpy().ravel() for batch in batches])
    classes = classes[classes != 255]
    assert metrics["seg"]["Pixel Acc"] == pytest.approx(np.bincount(classes).max() / len(classes))
    depths = valid_pixels(batches, "depth")[:, 0]
    assert metrics["depth"]["abs_err"] == pytest.approx(np.abs(depths - np.median(depths)).mean(), rel=1e-3)
