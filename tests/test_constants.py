"""What constants are learned from: of every target the valid values alone; and the best constant for each kind."""

import numpy as np
import pytest
import torch

from envs.constants import class_frequencies, class_numbers, labelled_classes, median, valid_pixels
from tests.metric_inputs import random_batch


@pytest.mark.parametrize(("target", "channels"), [("normal", 3), ("depth", 1), ("keypoint", 1), ("edge", 1)])
def test_valid_pixels_are_those_of_the_targets_own_mask(target: str, channels: int) -> None:
    batch = random_batch(0)
    values, valid = batch[target].numpy(), batch[f"{target}_valid"].numpy()[:, 0]
    expected = np.concatenate([image[:, mask].T for image, mask in zip(values, valid, strict=True)])
    assert expected.shape[1] == channels
    np.testing.assert_array_equal(valid_pixels(batch, target), expected)


def test_labelled_classes_leave_out_the_ignored_one() -> None:
    assert labelled_classes({"seg": torch.tensor([[[3, 255], [0, 3]]])}).tolist() == [3, 0, 3]


def test_of_a_domain_every_number_is_a_class() -> None:
    batch = {"sketch": torch.tensor([255, 0, 255, 344]), "real": torch.tensor([1])}
    classes = class_numbers(batch, "sketch")
    assert classes.tolist() == [255, 0, 255, 344]
    frequencies = class_frequencies(classes, 345).exp()
    assert frequencies.tolist() == pytest.approx([{0: 2, 255: 3, 344: 2}.get(number, 1) for number in range(345)])


def test_the_median_has_the_smallest_mean_absolute_difference() -> None:
    responses = valid_pixels(random_batch(1), "edge") ** 2
    best = (responses - median(responses, 1)).abs().mean()
    assert all(best < (responses - other).abs().mean() for other in (responses.mean(), median(responses, 1) + 0.05))
