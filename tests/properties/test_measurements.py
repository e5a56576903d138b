"""Metrics: for all predictions and ground truths the values exist, are in their ranges and are those of NumPy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.metrics import NormalsRelease, Values
from envs.metrics.normals import ANGLE_BIN
from envs.scoring import LARGEST_GAIN, relative_performance, score
from envs.task_sets import build_tasks
from envs.tasks import PROTOCOLS
from tests.properties.measurements import NUM_CLASSES, TASKS, Measured, measure, measured, splits
from utils.errors import UserError

every_kind = pytest.mark.parametrize("kind", TASKS)
both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)

RANGES = {
    **dict.fromkeys(("mIoU", "Pixel Acc", "accuracy"), (0, 1)),
    "cosine_similarity": (-1, 1),
    **dict.fromkeys(("Angle Mean", "Angle Median", "Angle RMSE"), (0, 180)),
    **dict.fromkeys(("Angle 11.25", "Angle 22.5", "Angle 30", "Angle 45"), (0, 100)),
    **dict.fromkeys(("sigma_1.25", "sigma_1.25^2", "sigma_1.25^3"), (0, 100)),
}
"""Of values that have an end; all others are errors, from 0 upwards."""


def assert_in_range(values: Values) -> None:
    for name, value in values.items():
        least, most = RANGES.get(name, (0, math.inf))
        assert value is None or (math.isfinite(value) and least - 1e-9 <= value <= most + 1e-9), name


def nearly(values: Values) -> Values:
    """The same but for the rounding of sums in another order."""
    return {
        name: None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in values.items()
    }


# Whatever is predicted


@every_kind
@both_protocols
@given(data=st.data())
@settings(max_examples=20)
def test_values_are_finite_and_in_their_ranges_or_none(kind: str, protocol: str, data: st.DataObject) -> None:
    given_measured = data.draw(measured(kind, same_size=False))
    metric = given_measured.task.new_metric(protocol)
    values = measure(metric, given_measured.pairs(data.draw(splits(len(given_measured.prediction)))))
    assert tuple(values) == metric.names
    assert_in_range(values)
    if not given_measured.counted().any() and kind != "Taskonomy's normals":
        assert set(values.values()) == {None}


@every_kind
@given(data=st.data())
@settings(max_examples=20)
def test_the_standard_knows_no_batches(kind: str, data: st.DataObject) -> None:
    given_measured = data.draw(measured(kind, same_size=False))
    split = data.draw(splits(len(given_measured.prediction)))
    whole = given_measured.values("standard")
    assert given_measured.values("standard", split) == nearly(whole)


@every_kind
@given(data=st.data())
@settings(max_examples=20)
def test_the_release_averages_batches_or_pools_them(kind: str, data: st.DataObject) -> None:
    given_measured = data.draw(measured(kind, same_size=False))
    split = data.draw(splits(len(given_measured.prediction)))
    of_batches = [given_measured.values("release", [chosen]) for chosen in split]
    sizes = [len(chosen) for chosen, values in zip(split, of_batches, strict=True) if None not in values.values()]
    of_batches = [values for values in of_batches if None not in values.values()]
    together = given_measured.values("release", split)
    averaged = {"Pixel Acc", "err", "abs_err", "rel_err", "sq_rel_err", "accuracy"}
    for name in averaged & together.keys() if of_batches else ():
        expected = np.average([values[name] for values in of_batches], weights=sizes)
        assert together[name] == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    if averaged.isdisjoint(together):
        whole = given_measured.values("release")
        assert together == nearly(whole)


PROTOCOLS_DIFFER = {
    **{kind: {"mIoU", "sigma_1.25", "sigma_1.25^2", "sigma_1.25^3"} for kind in TASKS},
    "CityScapes' segmentation": {"mIoU", "Pixel Acc"},
    "Taskonomy's normals": set(NormalsRelease.names),
}
"""Kind -> values that the release computes in another way, whatever the batches and sizes."""


@every_kind
@given(data=st.data())
@settings(max_examples=20)
def test_the_protocols_agree_on_one_batch_of_full_size(kind: str, data: st.DataObject) -> None:
    given_measured = data.draw(measured(kind))
    release, standard = given_measured.values("release"), nearly(given_measured.values("standard"))
    for name in release.keys() - PROTOCOLS_DIFFER[kind]:
        # The release leaves out a batch of which no depth can be divided by.
        assert release[name] in (None, standard[name]), name


@every_kind
@both_protocols
@given(data=st.data(), worst=st.sampled_from([math.nan, math.inf]))
@settings(max_examples=20)
def test_a_prediction_that_is_no_number_is_an_error_where_it_counts_and_nothing_elsewhere(
    kind: str, protocol: str, data: st.DataObject, worst: float
) -> None:
    given_measured = data.draw(measured(kind))
    counted = given_measured.counted()
    before = given_measured.values(protocol)
    place = data.draw(st.tuples(*(st.integers(0, size - 1) for size in counted.shape)))
    sample, *pixel = place
    given_measured.prediction[(sample, 0, *pixel)] = worst
    everything_counts = kind == "Taskonomy's normals" and protocol == "release"
    # A batch without a single depth above 0 does not count in the release's means of batches.
    if counted[place] or everything_counts:
        if before[next(iter(before))] is None:
            return
        with pytest.raises(UserError, match="NaN or infinite"):
            given_measured.values(protocol)
    else:
        assert given_measured.values(protocol) == before


# The best that can be predicted


def perfect(given_measured: Measured) -> torch.Tensor:
    """A prediction that nothing can surpass."""
    target = given_measured.batch[given_measured.task.target]
    if torch.is_floating_point(target):
        return target.clone()
    classes = target.where(given_measured.counted(), 0)
    one_hot = torch.nn.functional.one_hot(classes, given_measured.task.num_channels)
    return 100.0 * one_hot.movedim(-1, 1)


BEST = {name: most for name, (_, most) in RANGES.items()} | dict.fromkeys(
    ("Angle Mean", "Angle Median", "Angle RMSE"), 0
)


@every_kind
@both_protocols
@given(data=st.data())
@settings(max_examples=12)
def test_the_truth_has_the_best_values(kind: str, protocol: str, data: st.DataObject) -> None:
    given_measured = data.draw(measured(kind))
    target = given_measured.batch[given_measured.task.target]
    if given_measured.task.target == "normal":
        target[:, 0] += 2  # no vector without a direction
    if given_measured.task.target == "depth":
        target += 0.25  # no depth of 0, whose ratio is a miss
    given_measured.prediction = perfect(given_measured)
    everywhere = given_measured.counted().all() or kind != "CityScapes' segmentation" or protocol == "standard"
    for name, value in given_measured.values(protocol).items():
        if value is not None and (everywhere or name != "Pixel Acc"):
            # Rounding turns an angle of 0 into a millionth of a degree; the median is read from bins.
            assert value == pytest.approx(BEST.get(name, 0), abs=ANGLE_BIN if name == "Angle Median" else 1e-5), name


# NumPy's values, where every pixel is predicted


def numpy_segmentation(logits: np.ndarray, seg: np.ndarray) -> Values:
    chosen, classes = logits.argmax(0), range(len(logits))
    unions = [((chosen == c) | (seg == c)).sum() for c in classes]
    hits = [((chosen == c) & (seg == c)).sum() for c in classes]
    return {
        "mIoU": np.mean([hit / union for hit, union in zip(hits, unions, strict=True) if union]),
        "Pixel Acc": (chosen == seg).mean(),
        "err": numpy_cross_entropy(logits, seg).mean(),
    }


def numpy_cross_entropy(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    behind = logits - logits.max(0)
    return np.log(np.exp(behind).sum(0)) - behind[classes, np.arange(len(classes))]


def numpy_classification(logits: np.ndarray, classes: np.ndarray) -> Values:
    return {"accuracy": (logits.argmax(0) == classes).mean(), "err": numpy_cross_entropy(logits, classes).mean()}


def numpy_depth(predicted: np.ndarray, depth: np.ndarray) -> Values:
    predicted, depth = predicted[0], depth[0]
    error, divisible = np.abs(predicted - depth), depth > 0
    # Both directions as products: no division by 0 is due.
    close = [(predicted > 0) & (predicted < limit * depth) & (depth < limit * predicted) for limit in (1.25, 1.25**2)]
    relative = error[divisible] / depth[divisible]
    return {
        "abs_err": error.mean(),
        "rel_err": relative.mean() if len(relative) else None,
        "sq_rel_err": (relative * error[divisible]).mean() if len(relative) else None,
        "rms": np.sqrt((error**2).mean()),
        "sigma_1.25": 100 * close[0].mean(),
        "sigma_1.25^2": 100 * close[1].mean(),
    }


def numpy_normals(predicted: np.ndarray, normal: np.ndarray) -> Values:
    # A vector shorter than 1e-8 has no direction: it is at a right angle to all.
    lengths = [np.maximum(np.linalg.norm(vectors, axis=0), 1e-8) for vectors in (predicted, normal)]
    cosine = (predicted * normal).sum(0) / lengths[0] / lengths[1]
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return {
        "cosine_similarity": cosine.mean(),
        "Angle Mean": angles.mean(),
        "Angle Median": np.median(angles),
        "Angle RMSE": np.sqrt((angles**2).mean()),
        "Angle 30": 100 * (angles < 30).mean(),
    }


def numpy_response(predicted: np.ndarray, response: np.ndarray) -> Values:
    return {"err": np.abs(predicted - response).mean()}


NUMPY: dict[str, Callable[[np.ndarray, np.ndarray], Values]] = {
    "segmentation": numpy_segmentation,
    "CityScapes' segmentation": numpy_segmentation,
    "classification": numpy_classification,
    "depth": numpy_depth,
    "normals": numpy_normals,
    "keypoints": numpy_response,
}


@pytest.mark.parametrize("kind", NUMPY)
@given(data=st.data())
@settings(max_examples=40)
def test_the_standards_values_are_numpys(kind: str, data: st.DataObject) -> None:
    given_measured = data.draw(measured(kind))
    counted = given_measured.counted().numpy()
    predicted, truth = given_measured.prediction.numpy(), given_measured.batch[given_measured.task.target].numpy()
    if truth.ndim == predicted.ndim:
        truth = np.moveaxis(truth, 1, 0).astype(np.float64)
    values = given_measured.values("standard", data.draw(splits(len(predicted))))
    if not counted.any():
        assert set(values.values()) == {None}
        return
    expected = NUMPY[kind](np.moveaxis(predicted, 1, 0)[:, counted].astype(np.float64), truth[..., counted])
    for name, value in expected.items():
        tolerance = {"Angle Median": ANGLE_BIN, "Angle Mean": 1e-5, "Angle RMSE": 1e-5, "err": 1e-5}.get(name, 1e-12)
        assert values[name] == (None if value is None else pytest.approx(value, rel=1e-5, abs=tolerance)), name


# The score

SETTINGS = {
    "two tasks": build_tasks("NYU_v2", ["seg", "sn"], [40, 3]),
    "three tasks": build_tasks("NYU_v2", ["seg", "sn", "depth"], [40, 3, 1]),
    "CityScapes": build_tasks("CityScapes", ["seg", "depth"], [19, 1]),
    "Taskonomy": build_tasks("Taskonomy", ["seg", "sn", "depth", "keypoint", "edge"], [17, 3, 1, 1, 1]),
    "domains": build_tasks("DomainNet", ["real", "sketch"], [NUM_CLASSES, NUM_CLASSES]),
}


@st.composite
def metrics_of(draw: st.DrawFn, setting: str) -> dict[str, Values]:
    """Values in their ranges, or None, for every task of a setting."""
    return {
        name: {
            metric: draw(st.none() | st.floats(*RANGES.get(metric, (0, 1e38))))
            for metric in task.metrics["release"]().names
        }
        for name, task in SETTINGS[setting].items()
    }


@pytest.mark.parametrize("setting", SETTINGS)
@given(data=st.data())
@settings(max_examples=50)
def test_the_score_is_finite_and_better_values_never_lower_it(setting: str, data: st.DataObject) -> None:
    tasks, metrics = SETTINGS[setting], data.draw(metrics_of(setting))
    before = score(metrics, tasks)
    assert -len(tasks) / 0.7 <= before <= LARGEST_GAIN * len(tasks)
    task = tasks[data.draw(st.sampled_from(list(tasks)))]
    metric = data.draw(st.sampled_from(list(task.references)))
    value = metrics[task.name][metric]
    if value is not None:
        better = value / 2 if metric in task.lower_is_better else value + abs(value) / 2
        metrics[task.name] = metrics[task.name] | {metric: better}
        assert score(metrics, tasks) >= before - 1e-9


@pytest.mark.parametrize("setting", SETTINGS)
@given(data=st.data())
@settings(max_examples=30)
def test_the_gain_over_single_tasks_is_a_number_or_none(setting: str, data: st.DataObject) -> None:
    tasks = SETTINGS[setting]
    metrics, single = data.draw(metrics_of(setting)), data.draw(metrics_of(setting))
    for name, gain in relative_performance(metrics, single, tasks).items():
        usable = [single[name][m] and metrics[name][m] is not None for m in tasks[name].references]
        assert (gain is None) == (not any(usable))
    for name, gain in relative_performance(single, single, tasks).items():
        assert gain in (None, 0), name
