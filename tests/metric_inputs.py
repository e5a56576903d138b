"""Ground truth and predictions to measure: those of the parity numbers, and random ones with holes."""

import numpy as np
import torch
from torch import Tensor

from envs.losses import Batch
from tests.parity_inputs import metric_batch, metric_predictions, semseg_prior_factor
from tests.parity_networks import parity

PARITY = parity("metrics")

NUM_CLASSES = 5
NUM_CHANNELS = {"seg": NUM_CLASSES, "sn": 3, "depth": 1, "keypoint": 1, "edge": 1}
CLASS_FACTORS = torch.tensor([0.5, 2.0, 1.0, 0.7, 3.0])


def parity_batch(dataset: str, index: int) -> Batch:
    """Batch `index` of the parity inputs, as the data set's loader hands it over (NYU v2: with raw normals)."""
    arrays = metric_batch(dataset, index, PARITY[dataset]["num_classes"][0])
    seg = torch.from_numpy(arrays["seg"][:, 0].astype(np.int64))
    batch = {"seg": torch.where(seg == -1, 255, seg), "depth": torch.from_numpy(arrays["depth"])}
    if dataset == "CityScapes":
        return batch | {"depth_valid": batch["depth"] > 0}
    batch["normal"] = torch.from_numpy(arrays["normal"].astype(np.float32))
    if dataset == "NYU_v2":
        valid = (batch["normal"] != 255).any(dim=1, keepdim=True)
        return batch | {"normal_valid": valid, "depth_valid": batch["depth"] > 3e-5}
    everywhere = torch.ones_like(batch["depth"]).bool()
    factors = torch.from_numpy(np.append(semseg_prior_factor(), np.zeros(239, np.float32)))
    return batch | {
        "seg_weight": factors[batch["seg"]],
        "depth_valid": torch.from_numpy(arrays["depth_mask"] > 0),
        "normal_valid": torch.from_numpy(arrays["depth_mask"] > 0),
        "keypoint": torch.from_numpy(arrays["keypoint"]),
        "keypoint_valid": everywhere,
        "edge": torch.from_numpy(arrays["edge"]),
        "edge_valid": everywhere,
    }


def parity_predictions(dataset: str, index: int) -> dict[str, Tensor]:
    """{task: prediction} of batch `index` of the parity inputs."""
    expected = PARITY[dataset]
    arrays = metric_predictions(dataset, index, expected["tasks"], expected["num_classes"])
    return {task: torch.from_numpy(array) for task, array in arrays.items()}


def random_batch(seed: int, num_images: int = 3, size: tuple[int, int] = (24, 40)) -> Batch:
    """Ground truth of all maps, normals decoded; the images differ in their numbers of valid pixels."""
    random = torch.Generator().manual_seed(seed)
    share = torch.linspace(0.3, 0.9, num_images)[:, None, None, None]

    def valid() -> Tensor:
        return torch.rand(num_images, 1, *size, generator=random) < share

    def response() -> Tensor:
        return torch.rand(num_images, 1, *size, generator=random) * 2 - 1

    classes = torch.randint(NUM_CLASSES, (num_images, *size), generator=random)
    labelled = valid()[:, 0]
    normal = torch.nn.functional.normalize(torch.randn(num_images, 3, *size, generator=random), dim=1)
    return {
        "seg": classes.masked_fill(~labelled, 255),
        "seg_weight": CLASS_FACTORS[classes] * labelled,
        "normal": normal,
        "normal_valid": valid(),
        "depth": torch.rand(num_images, 1, *size, generator=random) * 4 + 0.5,
        "depth_valid": valid(),
        "keypoint": response(),
        "keypoint_valid": valid(),
        "edge": response(),
        "edge_valid": valid(),
    }


def random_predictions(seed: int, num_images: int = 3, size: tuple[int, int] = (3, 5)) -> dict[str, Tensor]:
    """{task: prediction} for the maps of `random_batch`; some depths are negative."""
    random = torch.Generator().manual_seed(seed)
    predictions = {
        task: torch.randn(num_images, channels, *size, generator=random) for task, channels in NUM_CHANNELS.items()
    }
    return predictions | {"depth": predictions["depth"] * 2 + 2}


def spoilt(batch: Batch) -> Batch:
    """The same batch, with values as bad as a file can make them wherever it is not valid."""
    worst = {"normal": 255.0, "depth": torch.nan, "keypoint": torch.nan, "edge": torch.nan}
    return batch | {key: torch.where(batch[f"{key}_valid"], batch[key], value) for key, value in worst.items()}


def without_valid_pixels(batch: Batch) -> Batch:
    """The same batch, with nothing to learn from."""
    masks = {key: torch.zeros_like(value) for key, value in batch.items() if key.endswith("_valid")}
    nothing = {"seg": torch.full_like(batch["seg"], 255), "seg_weight": torch.zeros_like(batch["seg_weight"])}
    return spoilt(batch | masks | nothing)


def images_of(batch: Batch, predictions: dict[str, Tensor], chosen: list[int]) -> tuple[Batch, dict[str, Tensor]]:
    """Batch and predictions of the chosen images alone."""
    return (
        {key: value[chosen] for key, value in batch.items()},
        {task: prediction[chosen] for task, prediction in predictions.items()},
    )
