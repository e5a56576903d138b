"""Losses and metrics: the release's numbers, and the standard protocol against NumPy."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from envs.losses import depth_loss, normal_loss, segmentation_loss
from envs.metrics import (
    ANGLE_BIN,
    DepthRelease,
    DepthStandard,
    NormalsRelease,
    NormalsStandard,
    SegmentationRelease,
    SegmentationStandard,
    angle_histogram,
    histogram_median,
    nearest,
    segmentation_sums,
)
from tests.parity_inputs import metric_batch, metric_predictions
from utils.errors import UserError

PARITY = json.loads((Path(__file__).parent / "parity" / "metrics.json").read_text())["NYU_v2"]
RELEASE_METRICS = {"seg": SegmentationRelease, "sn": NormalsRelease, "depth": DepthRelease}
STANDARD_METRICS = {"seg": SegmentationStandard, "sn": NormalsStandard, "depth": DepthStandard}
LOSSES = {"seg": segmentation_loss, "sn": normal_loss, "depth": depth_loss}
TASKS = ("seg", "sn", "depth")


def parity_batch(index):
    """Batch `index` of the parity inputs, as a data loader hands it over with raw normals."""
    arrays = metric_batch("NYU_v2", index, PARITY["num_classes"][0])
    normal = torch.from_numpy(arrays["normal"].astype(np.float32))
    depth = torch.from_numpy(arrays["depth"])
    return {
        "seg": torch.from_numpy(arrays["seg"][:, 0].astype(np.int64)),
        "normal": normal,
        "normal_valid": (normal != 255).any(dim=1, keepdim=True),
        "depth": depth,
        "depth_valid": depth > 3e-5,
        "name": [f"{index}-{image}" for image in range(len(depth))],
    }


def parity_predictions(index):
    arrays = metric_predictions("NYU_v2", index, PARITY["tasks"], PARITY["num_classes"])
    return {task: torch.from_numpy(array) for task, array in arrays.items()}


def random_batch(seed, num_images=3, num_classes=5, size=(24, 40)):
    """Ground truth with decoded normals; the images differ in their numbers of valid pixels."""
    random = torch.Generator().manual_seed(seed)
    share = torch.linspace(0.3, 0.9, num_images)[:, None, None, None]

    def valid():
        return torch.rand(num_images, 1, *size, generator=random) < share

    seg = torch.randint(num_classes, (num_images, *size), generator=random)
    normal = torch.nn.functional.normalize(torch.randn(num_images, 3, *size, generator=random), dim=1)
    return {
        "seg": seg.masked_fill(~valid()[:, 0], 255),
        "normal": normal,
        "normal_valid": valid(),
        "depth": torch.rand(num_images, 1, *size, generator=random) * 4 + 0.5,
        "depth_valid": valid(),
        "name": [str(image) for image in range(num_images)],
    }


def random_predictions(seed, num_images=3, num_classes=5, size=(3, 5)):
    random = torch.Generator().manual_seed(seed)
    return {
        "seg": torch.randn(num_images, num_classes, *size, generator=random),
        "sn": torch.randn(num_images, 3, *size, generator=random),
        "depth": torch.randn(num_images, 1, *size, generator=random) * 2 + 2,
    }


def without_valid_pixels(batch):
    """The same batch, with nothing to learn from; its unused values are as bad as a file can make them."""
    return batch | {
        "seg": torch.full_like(batch["seg"], 255),
        "normal_valid": torch.zeros_like(batch["normal_valid"]),
        "depth": torch.full_like(batch["depth"], torch.nan),
        "depth_valid": torch.zeros_like(batch["depth_valid"]),
    }


def images_of(batch, predictions, chosen):
    """Batch and predictions of the chosen images alone."""
    batch = {
        key: value[chosen] if torch.is_tensor(value) else [value[image] for image in chosen]
        for key, value in batch.items()
    }
    return batch, {task: prediction[chosen] for task, prediction in predictions.items()}


def measure(metric, task, pairs):
    for batch, predictions in pairs:
        metric.update(predictions[task], batch)
    return metric.compute()


class TestReleaseNumbers:
    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("index", range(3))
    def test_loss(self, task, index):
        loss = LOSSES[task](parity_predictions(index)[task], parity_batch(index))
        assert loss.item() == pytest.approx(PARITY["losses_per_batch"][index][task], rel=1e-4)

    @pytest.mark.parametrize("task", TASKS)
    def test_metrics_over_three_batches(self, task):
        pairs = [(parity_batch(index), parity_predictions(index)) for index in range(3)]
        values = measure(RELEASE_METRICS[task](), task, pairs)
        expected = PARITY["metrics"][task]
        assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-4)

    def test_negative_depths_count_as_accurate(self):
        batch = random_batch(0)
        predictions = -torch.ones(3, 1, 3, 5)
        release, standard = DepthRelease(), DepthStandard()
        release.update(predictions, batch)
        standard.update(predictions, batch)
        assert release.compute()["sigma_1.25"] == 100
        assert standard.compute()["sigma_1.25^3"] == 0

    def test_classes_never_hit_are_left_out_of_the_mean(self):
        seg = torch.tensor([[[0, 0, 1, 1]]])
        always_class_0 = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        release, standard = SegmentationRelease(), SegmentationStandard()
        release.update(always_class_0, {"seg": seg})
        standard.update(always_class_0, {"seg": seg})
        assert release.compute()["mIoU"] == pytest.approx(0.5)
        assert standard.compute()["mIoU"] == pytest.approx(0.25)

    def test_nothing_hit_is_a_mean_iou_of_zero(self):
        metric = SegmentationRelease()
        metric.update(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), {"seg": torch.ones(1, 4, 4).long()})
        assert metric.compute()["mIoU"] == 0

    def test_batches_weigh_by_their_images_not_by_their_pixels(self):
        batch, predictions = random_batch(1), random_predictions(1)
        one, two = images_of(batch, predictions, [0]), images_of(batch, predictions, [1, 2])
        for task, name in (
            ("seg", "Pixel Acc"),
            ("seg", "err"),
            ("depth", "abs_err"),
            ("depth", "sq_rel_err"),
        ):
            new_metric = RELEASE_METRICS[task]
            separate = [measure(new_metric(), task, [pair])[name] for pair in (one, two)]
            together = measure(new_metric(), task, [one, two])[name]
            assert together == pytest.approx((separate[0] + 2 * separate[1]) / 3)


def resized(prediction, size):
    """Bilinear with OpenCV, which is independent of torch: [C, h, w] -> float64 [C, H, W]."""
    height, width = size
    channels = [cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR) for channel in prediction]
    return np.stack(channels).astype(np.float64)


def valid_pixels(task, prediction, batch):
    """Prediction [C, P] and target ([P] or [C, P]) of all valid pixels of the batch, in NumPy."""
    target_name = {"seg": "seg", "sn": "normal", "depth": "depth"}[task]
    target = batch[target_name].numpy()
    valid = target != 255 if task == "seg" else batch[f"{target_name}_valid"].numpy()[:, 0]
    full_size = [resized(image, target.shape[-2:]) for image in prediction.numpy()]
    predicted = np.concatenate([image[:, mask] for image, mask in zip(full_size, valid, strict=True)], axis=1)
    return predicted, np.concatenate([image[..., mask] for image, mask in zip(target, valid, strict=True)], axis=-1)


class TestStandardAgainstNumPy:
    batch = random_batch(2)
    predictions = random_predictions(2)

    def compute(self, task):
        return measure(STANDARD_METRICS[task](), task, [(self.batch, self.predictions)])

    def test_segmentation(self):
        logits, seg = valid_pixels("seg", self.predictions["seg"], self.batch)
        chosen = logits.argmax(0)
        ious = [
            ((chosen == c) & (seg == c)).sum() / ((chosen == c) | (seg == c)).sum()
            for c in range(5)
            if ((chosen == c) | (seg == c)).any()
        ]
        probabilities = np.exp(logits) / np.exp(logits).sum(0)
        expected = {
            "mIoU": np.mean(ious),
            "Pixel Acc": (chosen == seg).mean(),
            "err": -np.log(probabilities[seg, np.arange(len(seg))]).mean(),
        }
        assert self.compute("seg") == pytest.approx(expected, rel=1e-5)

    def test_normals(self):
        predicted, normal = valid_pixels("sn", self.predictions["sn"], self.batch)
        predicted = predicted / np.linalg.norm(predicted, axis=0)
        cosine = (predicted * normal).sum(0)
        angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        expected = {
            "cosine_similarity": cosine.mean(),
            "Angle Mean": angles.mean(),
            "Angle RMSE": np.sqrt((angles**2).mean()),
            **{f"Angle {t}": 100 * (angles < t).mean() for t in (11.25, 22.5, 30, 45)},
        }
        values = self.compute("sn")
        assert values.pop("Angle Median") == pytest.approx(np.median(angles), abs=1.5 * ANGLE_BIN)
        assert values == pytest.approx(expected, rel=1e-4)

    def test_depth(self):
        predicted, depth = valid_pixels("depth", self.predictions["depth"], self.batch)
        predicted = predicted[0]
        depth = depth.reshape(-1)
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
        assert self.compute("depth") == pytest.approx(expected, rel=1e-4)


def test_rows_of_the_confusion_matrix_are_the_true_classes():
    always_class_2 = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    seg = torch.tensor([[[0, 1, 1, 255]]])
    confusion, _ = segmentation_sums(always_class_2, seg, nearest)
    assert confusion.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]


class TestAccumulation:
    @pytest.mark.parametrize("task", TASKS)
    def test_standard_knows_neither_batch_size_nor_order(self, task):
        batch, predictions = random_batch(3, num_images=5), random_predictions(3, num_images=5)
        new_metric = STANDARD_METRICS[task]
        whole = measure(new_metric(), task, [(batch, predictions)])
        parts = [images_of(batch, predictions, chosen) for chosen in ([4, 0], [2], [3, 1])]
        assert measure(new_metric(), task, parts) == pytest.approx(whole, rel=1e-9)

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("metrics", [RELEASE_METRICS, STANDARD_METRICS])
    def test_a_batch_without_valid_pixels_does_not_count(self, task, metrics):
        pair = random_batch(4), random_predictions(4)
        empty = without_valid_pixels(pair[0]), random_predictions(5)
        assert measure(metrics[task](), task, [empty, pair, empty]) == measure(metrics[task](), task, [pair])

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("metrics", [RELEASE_METRICS, STANDARD_METRICS])
    def test_nothing_valid_at_all_is_none(self, task, metrics):
        metric = metrics[task]()
        expected = dict.fromkeys(metric.names)
        assert metric.compute() == expected
        assert measure(metric, task, [(without_valid_pixels(random_batch(4)), random_predictions(4))]) == expected

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("metrics", [RELEASE_METRICS, STANDARD_METRICS])
    def test_invalid_pixels_change_nothing(self, task, metrics):
        batch, predictions = random_batch(6), random_predictions(6)
        spoilt = batch | {
            "normal": torch.where(batch["normal_valid"], batch["normal"], 255.0),
            "depth": torch.where(batch["depth_valid"], batch["depth"], 0.0),
        }
        values = measure(metrics[task](), task, [(batch, predictions)])
        assert measure(metrics[task](), task, [(spoilt, predictions)]) == values

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("metrics", [RELEASE_METRICS, STANDARD_METRICS])
    def test_predictions_that_are_not_numbers_are_refused(self, task, metrics):
        predictions = random_predictions(7)
        predictions[task][0, 0, 0, 0] = torch.nan
        with pytest.raises(UserError, match="NaN or infinite"):
            measure(metrics[task](), task, [(random_batch(7), predictions)])

    def test_compute_may_be_called_while_accumulating(self):
        pair = random_batch(8), random_predictions(8)
        metric = DepthStandard()
        first = measure(metric, "depth", [pair])
        assert metric.compute() == first
        assert measure(metric, "depth", [pair]) == pytest.approx(first)


class TestMedian:
    @pytest.mark.parametrize("count", [1, 2, 7, 1000])
    def test_equals_numpy_to_half_a_bin(self, count):
        angles = torch.from_numpy(np.random.RandomState(count).rand(count) * 180)
        median = histogram_median(angle_histogram(angles).double())
        assert median.item() == pytest.approx(np.median(angles.numpy()), abs=0.5 * ANGLE_BIN + 1e-9)

    def test_both_ends_of_the_range(self):
        metric = NormalsStandard()
        normal = torch.tensor([0.0, 0.6, 0.8]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
        batch = {"normal": normal, "normal_valid": torch.ones(1, 1, 8, 8, dtype=torch.bool)}
        metric.update(3 * normal[..., :1, :1], batch)
        assert metric.compute()["Angle Median"] == pytest.approx(0, abs=ANGLE_BIN)
        assert metric.compute()["Angle Mean"] == pytest.approx(0, abs=1e-4)
        metric.update(-normal[..., :1, :1], batch)
        assert metric.compute()["Angle Mean"] == pytest.approx(90, abs=1e-4)
        assert metric.compute()["Angle Median"] == pytest.approx(90, abs=ANGLE_BIN)

    def test_equal_vectors_are_at_no_angle(self):
        normal = random_batch(12)["normal"]
        metric = NormalsRelease()
        metric.update(normal, {"normal": normal, "normal_valid": torch.ones_like(normal[:, :1]).bool()})
        assert metric.compute()["Angle Mean"] == pytest.approx(0, abs=1e-4)


class TestLosses:
    @pytest.mark.parametrize("task", TASKS)
    def test_no_valid_pixel_is_a_zero_that_keeps_the_graph(self, task):
        prediction = random_predictions(9)[task].requires_grad_()
        loss = LOSSES[task](prediction, without_valid_pixels(random_batch(9)))
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(prediction.grad, torch.zeros_like(prediction))

    @pytest.mark.parametrize("task", TASKS)
    def test_only_valid_pixels_have_a_gradient(self, task):
        prediction = random_predictions(10, size=(24, 40))[task].requires_grad_()
        batch = random_batch(10)
        batch["depth"][~batch["depth_valid"]] = torch.nan
        LOSSES[task](prediction, batch).backward()
        valid = {
            "seg": batch["seg"][:, None] != 255,
            "sn": batch["normal_valid"],
            "depth": batch["depth_valid"],
        }
        moved = (prediction.grad != 0).any(dim=1, keepdim=True)
        assert torch.equal(moved, valid[task])

    def test_the_length_of_a_normal_does_not_matter(self):
        prediction, batch = random_predictions(11)["sn"], random_batch(11)
        longer = batch | {"normal": 7 * batch["normal"]}
        assert normal_loss(3 * prediction, longer).item() == pytest.approx(normal_loss(prediction, batch).item())
