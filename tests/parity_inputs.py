"""Inputs of the parity tests, rebuilt from names alone.

The numbers in `tests/parity/*.json` were produced by the published release on these inputs. Every array is a
function of its name and shape, so no test has to ship weights, images or ground truth. Maps are [N, C, H, W].
"""

import zlib

import numpy as np

METRIC_BATCH_SIZE = 2
TARGET_SIZE = (40, 56)
PREDICTION_SIZE = (5, 7)


def generator(name: str) -> np.random.RandomState:
    """The random stream that belongs to `name`."""
    return np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one entry of a state dict.

    Args:
        name: key in the release's state dict, such as `backbone.conv1.weight` or `task1_logits`.
        shape: shape of the entry.

    Returns:
        float32 array of that shape (int64 zeros for BatchNorm's `num_batches_tracked`): variances in
        [0.5, 1.5), scales in [0.2, 0.4), small biases and means, standard normal logits, and weights of
        variance 1 / fan-in.
    """
    shape = tuple(shape)
    random = generator(name)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if name.endswith("running_var"):
        value = 0.5 + random.rand(*shape)
    elif name.endswith("running_mean"):
        value = 0.1 * random.randn(*shape)
    elif len(shape) == 1 and name.endswith("weight"):
        value = 0.2 + 0.2 * random.rand(*shape)
    elif len(shape) == 1:
        value = 0.1 * random.randn(*shape)
    elif "logits" in name:
        value = random.randn(*shape)
    else:
        fan_in = int(np.prod(shape[1:]))
        value = random.randn(*shape) * np.sqrt(1.0 / fan_in)
    return np.asarray(value, dtype=np.float32)


def policies(seed: int, num_tasks: int, num_blocks: int, keep: float = 0.7) -> list[list[int]]:
    """Random hard gates [num_tasks][num_blocks]: 1 (execute) with probability `keep`, else 0 (skip)."""
    random = np.random.RandomState(seed)
    return [(random.rand(num_blocks) < keep).astype(int).tolist() for _ in range(num_tasks)]


def _uniform(name: str, channels: int) -> np.ndarray:
    """float32 [2, channels, 40, 56] in [0, 1)."""
    return generator(name).rand(METRIC_BATCH_SIZE, channels, *TARGET_SIZE).astype(np.float32)


def _integers(name: str, channels: int, bound: int) -> np.ndarray:
    """int [2, channels, 40, 56] in [0, bound)."""
    return generator(name).randint(0, bound, (METRIC_BATCH_SIZE, channels, *TARGET_SIZE))


def metric_batch(dataset: str, index: int, num_seg_classes: int) -> dict[str, np.ndarray]:
    """Ground truth of batch `index` (0, 1 or 2) in `tests/parity/metrics.json`.

    Args:
        dataset: "NYU_v2", "CityScapes" or "Taskonomy".
        index: number of the batch.
        num_seg_classes: classes of the segmentation target.

    Returns:
        {target: array [2, C, 40, 56]} in the release's stored form: "seg" int with about 15 % ignored pixels
        (-1 in CityScapes, else 255); "depth" float32, 0 where invalid (Taskonomy: "depth_mask" 0/1 instead);
        "normal" uint8 raw pixels, white where invalid (Taskonomy: float32 in [-1, 1)); "keypoint" and "edge"
        float32 in [-1, 1).
    """
    prefix = f"{dataset}.batch{index}."
    seg = _integers(prefix + "seg", 1, num_seg_classes).copy()
    seg[_uniform(prefix + "bad", 1) < 0.15] = -1 if dataset == "CityScapes" else 255
    depth_draw = _uniform(prefix + "depth", 1)
    depth_hole_draw = _uniform(prefix + "dbad", 1)

    if dataset == "Taskonomy":
        return {
            "seg": seg,
            "normal": _uniform(prefix + "normal", 3) * 2 - 1,
            "depth": depth_draw * 0.6 + 0.2,
            "depth_mask": (depth_hole_draw > 0.2).astype(np.float32),
            "keypoint": _uniform(prefix + "kp", 1) * 2 - 1,
            "edge": _uniform(prefix + "edge", 1) * 2 - 1,
        }

    depth = np.where(depth_hole_draw < 0.2, 0, depth_draw * 4 + 0.5).astype(np.float32)
    if dataset == "CityScapes":
        return {"seg": seg, "depth": depth}

    normal = _integers(prefix + "normal", 3, 255).astype(np.uint8)
    normal = np.where(_uniform(prefix + "nbad", 1) < 0.2, np.uint8(255), normal)
    return {"seg": seg, "depth": depth, "normal": normal}


def metric_predictions(dataset: str, index: int, tasks: list[str], num_classes: list[int]) -> dict[str, np.ndarray]:
    """Network outputs that belong to `metric_batch(dataset, index, ...)`.

    Returns:
        {task: float32 [2, C, 5, 7]}, standard normal; the depths of even batches are positive, those of odd
        batches have both signs.
    """
    predictions = {}
    for task, channels in zip(tasks, num_classes, strict=True):
        shape = (METRIC_BATCH_SIZE, channels, *PREDICTION_SIZE)
        prediction = generator(f"{dataset}.batch{index}.pred.{task}").randn(*shape).astype(np.float32)
        if task == "depth" and index % 2 == 0:
            prediction = np.abs(prediction) * 1.5 + 0.2
        predictions[task] = prediction.astype(np.float32)
    return predictions


def semseg_prior_factor() -> np.ndarray:
    """Taskonomy's class weights behind its numbers, float32 [17] in [0.5, 1.5)."""
    return np.random.RandomState(11).rand(17).astype(np.float32) + 0.5
