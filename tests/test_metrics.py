"""Metrics: the release's numbers, the standard protocol against NumPy, and how they accumulate."""

from collections.abc import Iterable

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from envs.losses import Batch
from envs.metrics import (
    Classification,
    DepthRelease,
    DepthStandard,
    Metric,
    NormalsRelease,
    NormalsStandard,
    SegmentationRelease,
    SegmentationStandard,
    Values,
)
from envs.metrics.metric import nearest
from envs.metrics.normals import ANGLE_BIN, angle_histogram, histogram_median
from envs.metrics.segmentation import segmentation_sums
from envs.task_sets import build_tasks
from envs.tasks import (
    CLASS_WEIGHTED_SEGMENTATION,
    DEPTH,
    EDGES,
    KEYPOINTS,
    PROTOCOLS,
    SEGMENTATION,
    SURFACE_NORMALS,
    Task,
)
from tests.metric_inputs import (
    CLASS_FACTORS,
    NUM_CLASSES,
    PARITY,
    images_of,
    parity_batch,
    parity_predictions,
    random_batch,
    random_predictions,
    spoilt,
    without_valid_pixels,
)
from utils.errors import UserError

MAPS = [SEGMENTATION, CLASS_WEIGHTED_SEGMENTATION, SURFACE_NORMALS, DEPTH, KEYPOINTS, EDGES]
every_map = pytest.mark.parametrize("task", MAPS, ids=lambda task: f"{task.title}-{task.headline}")
both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)

Pairs = Iterable[tuple[Batch, dict[str, Tensor]]]


def accumulate(metric: Metric, task: str, pairs: Pairs) -> Values:
    """The values of the metric after these batches and predictions."""
    for batch, predictions in pairs:
        metric.update(predictions[task], batch)
    return metric.compute()


def measure(task: Task, protocol: str, pairs: Pairs) -> Values:
    """The values of the task's metric over batches and predictions."""
    return accumulate(task.new_metric(protocol), task.name, pairs)


class TestReleaseNumbers:
    @pytest.mark.parametrize("dataset", PARITY)
    def test_metrics_over_three_batches(self, dataset: str) -> None:
        expected = PARITY[dataset]
        tasks = build_tasks(dataset, expected["tasks"], expected["num_classes"])
        pairs = [(parity_batch(dataset, index), parity_predictions(dataset, index)) for index in range(3)]
        for name, task in tasks.items():
            values = measure(task, "release", pairs)
            known = {metric: values[metric] for metric in expected["metrics"][name]}
            assert known == pytest.approx(expected["metrics"][name], rel=1e-4), name

    def test_cityscapes_pixels_without_a_label_are_misses_in_the_release_but_not_by_the_standard(self) -> None:
        batch = {"seg": torch.tensor([[[0, 0, 1, 255]]])}
        always_class_0 = {"seg": torch.tensor([1.0] + 18 * [0.0]).view(1, 19, 1, 1)}
        task = build_tasks("CityScapes", ["seg"], [19])["seg"]
        assert measure(task, "release", [(batch, always_class_0)])["Pixel Acc"] == pytest.approx(2 / 4)
        assert measure(task, "standard", [(batch, always_class_0)])["Pixel Acc"] == pytest.approx(2 / 3)
        assert measure(SEGMENTATION, "release", [(batch, always_class_0)])["Pixel Acc"] == pytest.approx(2 / 3)

    def test_taskonomys_normals_count_everywhere_in_the_release_but_not_by_the_standard(self) -> None:
        pair = parity_batch("Taskonomy", 0), parity_predictions("Taskonomy", 0)
        everywhere = pair[0] | {"normal_valid": torch.ones_like(pair[0]["normal_valid"])}, pair[1]
        task = build_tasks("Taskonomy", ["sn"], [3])["sn"]
        assert measure(task, "release", [pair]) == measure(task, "release", [everywhere])
        measured = measure(task, "standard", [pair])
        assert measured == measure(SURFACE_NORMALS, "standard", [pair])
        assert measured["Angle Mean"] != pytest.approx(measure(task, "standard", [everywhere])["Angle Mean"], rel=1e-3)

    def test_negative_depths_count_as_accurate(self) -> None:
        batch = random_batch(0)
        predictions = -torch.ones(3, 1, 3, 5)
        release, standard = DepthRelease(), DepthStandard()
        release.update(predictions, batch)
        standard.update(predictions, batch)
        assert release.compute()["sigma_1.25"] == 100
        assert standard.compute()["sigma_1.25^3"] == 0

    def test_classes_never_hit_are_left_out_of_the_mean(self) -> None:
        seg = torch.tensor([[[0, 0, 1, 1]]])
        always_class_0 = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        release, standard = SegmentationRelease(), SegmentationStandard()
        release.update(always_class_0, {"seg": seg})
        standard.update(always_class_0, {"seg": seg})
        assert release.compute()["mIoU"] == pytest.approx(0.5)
        assert standard.compute()["mIoU"] == pytest.approx(0.25)

    def test_nothing_hit_is_a_mean_iou_of_zero(self) -> None:
        metric = SegmentationRelease()
        metric.update(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), {"seg": torch.ones(1, 4, 4).long()})
        assert metric.compute()["mIoU"] == 0

    @pytest.mark.parametrize(
        ("task", "name"),
        [
            (SEGMENTATION, "Pixel Acc"),
            (SEGMENTATION, "err"),
            (CLASS_WEIGHTED_SEGMENTATION, "err"),
            (DEPTH, "abs_err"),
            (DEPTH, "sq_rel_err"),
            (KEYPOINTS, "err"),
            (EDGES, "err"),
        ],
        ids=lambda value: value if isinstance(value, str) else value.title,
    )
    def test_batches_weigh_by_their_images_not_by_their_pixels(self, task: Task, name: str) -> None:
        batch, predictions = random_batch(1), random_predictions(1)
        one, two = images_of(batch, predictions, [0]), images_of(batch, predictions, [1, 2])
        separate = [measure(task, "release", [pair])[name] for pair in (one, two)]
        together = measure(task, "release", [one, two])[name]
        assert together == pytest.approx((separate[0] + 2 * separate[1]) / 3)


def resized(prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with OpenCV, which is independent of torch: [C, h, w] -> float64 [C, H, W]."""
    height, width = size
    channels = [cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR) for channel in prediction]
    return np.stack(channels).astype(np.float64)


def valid_pixels(task: Task, prediction: Tensor, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Prediction [C, P] and target ([P] or [C, P]) of all valid pixels of the batch, in NumPy."""
    target = batch[task.target].numpy()
    valid = target != 255 if task.target == "seg" else batch[f"{task.target}_valid"].numpy()[:, 0]
    full_size = [resized(image, target.shape[-2:]) for image in prediction.numpy()]
    predicted = np.concatenate([image[:, mask] for image, mask in zip(full_size, valid, strict=True)], axis=1)
    return predicted, np.concatenate([image[..., mask] for image, mask in zip(target, valid, strict=True)], axis=-1)


class TestStandardAgainstNumPy:
    batch = random_batch(2)
    predictions = random_predictions(2)

    def compute(self, task: Task) -> Values:
        return measure(task, "standard", [(self.batch, self.predictions)])

    def valid(self, task: Task) -> tuple[np.ndarray, np.ndarray]:
        return valid_pixels(task, self.predictions[task.name], self.batch)

    @pytest.mark.parametrize(
        ("task", "factors"),
        [(SEGMENTATION, np.ones(NUM_CLASSES)), (CLASS_WEIGHTED_SEGMENTATION, CLASS_FACTORS.numpy())],
        ids=["equal", "weighted"],
    )
    def test_segmentation(self, task: Task, factors: np.ndarray) -> None:
        logits, seg = self.valid(task)
        chosen = logits.argmax(0)
        ious = [
            ((chosen == c) & (seg == c)).sum() / ((chosen == c) | (seg == c)).sum()
            for c in range(NUM_CLASSES)
            if ((chosen == c) | (seg == c)).any()
        ]
        probabilities = np.exp(logits) / np.exp(logits).sum(0)
        errors = -np.log(probabilities[seg, np.arange(len(seg))])
        expected = {
            "mIoU": np.mean(ious),
            "Pixel Acc": (chosen == seg).mean(),
            "err": (factors[seg] * errors).sum() / factors[seg].sum(),
        }
        assert self.compute(task) == pytest.approx(expected, rel=1e-5)

    def test_normals(self) -> None:
        predicted, normal = self.valid(SURFACE_NORMALS)
        predicted = predicted / np.linalg.norm(predicted, axis=0)
        cosine = (predicted * normal).sum(0)
        angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        expected = {
            "cosine_similarity": cosine.mean(),
            "Angle Mean": angles.mean(),
            "Angle RMSE": np.sqrt((angles**2).mean()),
            **{f"Angle {t}": 100 * (angles < t).mean() for t in (11.25, 22.5, 30, 45)},
        }
        values = self.compute(SURFACE_NORMALS)
        assert values.pop("Angle Median") == pytest.approx(np.median(angles), abs=1.5 * ANGLE_BIN)
        assert values == pytest.approx(expected, rel=1e-4)

    def test_depth(self) -> None:
        predicted, depth = (pixels.reshape(-1) for pixels in self.valid(DEPTH))
        assert (predicted <= 0).any(), "the case of negative depths must occur"
        error = np.abs(predicted - depth)
        positive = predicted > 0
        ratio = np.maximum(predicted[positive] / depth[positive], depth[positive] / predicted[positive])
        expected = {
            "abs_err": error.mean(),
            "rel_err": (error / depth).mean(),
            "sq_rel_err": (error**2 / depth).mean(),
            "rms": np.sqrt((error**2).mean()),
            "sigma_1.25": 100 * (ratio < 1.25).sum() / len(depth),
            "sigma_1.25^2": 100 * (ratio < 1.5625).sum() / len(depth),
            "sigma_1.25^3": 100 * (ratio < 1.953125).sum() / len(depth),
        }
        assert self.compute(DEPTH) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("task", [KEYPOINTS, EDGES], ids=lambda task: task.name)
    def test_response_maps(self, task: Task) -> None:
        predicted, response = self.valid(task)
        assert self.compute(task) == pytest.approx({"err": np.abs(predicted - response).mean()}, rel=1e-5)


@both_protocols
def test_a_depth_of_zero_has_no_relative_error_and_is_never_accurate(protocol: str) -> None:
    depth = torch.tensor([0.0, 0.5, 0.5, 0.0]).view(1, 1, 1, 4)
    batch = {"depth": depth, "depth_valid": torch.tensor([True, True, True, False]).view(1, 1, 1, 4)}
    values = measure(DEPTH, protocol, [(batch, {"depth": torch.full((1, 1, 1, 1), 0.6)})])
    assert values["abs_err"] == pytest.approx((0.6 + 0.1 + 0.1) / 3)
    assert values["rel_err"] == pytest.approx(0.1 / 0.5)
    assert values["sq_rel_err"] == pytest.approx(0.01 / 0.5)
    assert values["rms"] == pytest.approx(((0.36 + 0.01 + 0.01) / 3) ** 0.5)
    assert values["sigma_1.25"] == pytest.approx(200 / 3)
    nothing_to_divide_by = batch | {"depth": torch.zeros_like(depth)}
    assert measure(DEPTH, protocol, [(nothing_to_divide_by, {"depth": torch.ones(1, 1, 1, 1)})])["rel_err"] is None


def test_rows_of_the_confusion_matrix_are_the_true_classes() -> None:
    always_class_2 = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    seg = torch.tensor([[[0, 1, 1, 255]]])
    confusion, _ = segmentation_sums(always_class_2, seg, torch.ones(1, 1, 4), nearest)
    assert confusion.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]


class TestClassification:
    @staticmethod
    def samples(seed: int, count: int, num_classes: int = 7) -> tuple[Batch, dict[str, Tensor]]:
        random = torch.Generator().manual_seed(seed)
        batch = {
            "sketch": torch.randint(num_classes, (count,), generator=random),
            "clipart": torch.zeros(count, dtype=torch.int64),
        }
        return batch, {"sketch": torch.randn(count, num_classes, generator=random)}

    @both_protocols
    def test_against_numpy_whatever_the_batch_size(self, protocol: str) -> None:
        pairs = [self.samples(seed, count) for seed, count in enumerate((16, 16, 5))]
        logits = np.concatenate([predictions["sketch"].numpy() for _, predictions in pairs]).astype(np.float64)
        classes = np.concatenate([batch["sketch"].numpy() for batch, _ in pairs])
        likelihood = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        expected = {
            "accuracy": (logits.argmax(1) == classes).mean(),
            "err": -np.log(likelihood[np.arange(37), classes]).mean(),
        }
        task = build_tasks("DomainNet", ["sketch"], [7])["sketch"]
        assert measure(task, protocol, pairs) == pytest.approx(expected, rel=1e-6)

    def test_no_sample_at_all_is_none(self) -> None:
        assert Classification("sketch").compute() == {"accuracy": None, "err": None}

    def test_predictions_that_are_not_numbers_are_refused(self) -> None:
        batch, predictions = self.samples(0, 4)
        predictions["sketch"][0, 0] = torch.nan
        with pytest.raises(UserError, match="NaN or infinite"):
            accumulate(Classification("sketch"), "sketch", [(batch, predictions)])


class TestAccumulation:
    @every_map
    def test_standard_knows_neither_batch_size_nor_order(self, task: Task) -> None:
        batch, predictions = random_batch(3, num_images=5), random_predictions(3, num_images=5)
        whole = measure(task, "standard", [(batch, predictions)])
        parts = [images_of(batch, predictions, chosen) for chosen in ([4, 0], [2], [3, 1])]
        assert measure(task, "standard", parts) == pytest.approx(whole, rel=1e-9)

    @every_map
    @both_protocols
    def test_a_batch_without_valid_pixels_does_not_count(self, task: Task, protocol: str) -> None:
        pair = random_batch(4), random_predictions(4)
        empty = without_valid_pixels(pair[0]), random_predictions(5)
        assert measure(task, protocol, [empty, pair, empty]) == measure(task, protocol, [pair])

    @every_map
    @both_protocols
    def test_nothing_valid_at_all_is_none(self, task: Task, protocol: str) -> None:
        metric = task.new_metric(protocol)
        expected = dict.fromkeys(metric.names)
        assert metric.compute() == expected
        empty = without_valid_pixels(random_batch(4)), random_predictions(4)
        assert accumulate(metric, task.name, [empty]) == expected

    @every_map
    @both_protocols
    def test_invalid_pixels_change_nothing(self, task: Task, protocol: str) -> None:
        batch, predictions = random_batch(6), random_predictions(6)
        values = measure(task, protocol, [(batch, predictions)])
        assert measure(task, protocol, [(spoilt(batch), predictions)]) == values

    @every_map
    @both_protocols
    def test_predictions_that_are_not_numbers_are_refused(self, task: Task, protocol: str) -> None:
        predictions = random_predictions(7)
        predictions[task.name][0, 0, 0, 0] = torch.nan
        with pytest.raises(UserError, match="NaN or infinite"):
            measure(task, protocol, [(random_batch(7), predictions)])

    def test_compute_may_be_called_while_accumulating(self) -> None:
        pair = random_batch(8), random_predictions(8)
        metric = DepthStandard()
        first = accumulate(metric, "depth", [pair])
        assert metric.compute() == first
        assert accumulate(metric, "depth", [pair]) == pytest.approx(first)


class TestMedian:
    @pytest.mark.parametrize("count", [1, 2, 7, 1000])
    def test_equals_numpy_to_half_a_bin(self, count: int) -> None:
        angles = torch.from_numpy(np.random.RandomState(count).rand(count) * 180)
        median = histogram_median(angle_histogram(angles).double())
        assert median.item() == pytest.approx(np.median(angles.numpy()), abs=0.5 * ANGLE_BIN + 1e-9)

    def test_both_ends_of_the_range(self) -> None:
        metric = NormalsStandard()
        normal = torch.tensor([0.0, 0.6, 0.8]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
        batch = {"normal": normal, "normal_valid": torch.ones(1, 1, 8, 8, dtype=torch.bool)}
        metric.update(3 * normal[..., :1, :1], batch)
        assert metric.compute()["Angle Median"] == pytest.approx(0, abs=ANGLE_BIN)
        assert metric.compute()["Angle Mean"] == pytest.approx(0, abs=1e-4)
        metric.update(-normal[..., :1, :1], batch)
        assert metric.compute()["Angle Mean"] == pytest.approx(90, abs=1e-4)
        assert metric.compute()["Angle Median"] == pytest.approx(90, abs=ANGLE_BIN)

    def test_equal_vectors_are_at_no_angle(self) -> None:
        normal = random_batch(12)["normal"]
        metric = NormalsRelease()
        metric.update(normal, {"normal": normal, "normal_valid": torch.ones_like(normal[:, :1]).bool()})
        assert metric.compute()["Angle Mean"] == pytest.approx(0, abs=1e-4)
