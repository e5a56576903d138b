"""Metric of keypoints and edges, which are maps of a detector's response: the mean absolute difference."""

from torch import Tensor

from envs.losses import Batch
from envs.metrics.metric import Metric, Sums, bilinear, nearest


class ResponseMap(Metric):
    """What both protocols share: the name of the value.

    Args:
        target: "keypoint" or "edge", the entry of the batch; its valid pixels are in "{target}_valid".
    """

    names = ("err",)

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def errors(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Absolute differences of the valid pixels [P], float64, of a prediction [N, 1, H, W] already resized."""
        valid = batch[f"{self.target}_valid"]
        return (prediction[valid].double() - batch[self.target][valid].double()).abs()


class ResponseMapRelease(ResponseMap):
    """Keypoints or edges in the release protocol: the means of the batches, averaged by their numbers of images."""

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Responses [N, 1, h, w] against the target [N, 1, H, W], -1..1."""
        errors = self.errors(nearest(prediction, batch[self.target]), batch)
        if len(errors):
            self.add(num_images=len(prediction), error=len(prediction) * errors.mean())

    def _summarise(self, sums: Sums) -> dict[str, float]:
        return {"err": sums["error"] / sums["num_images"]}


class ResponseMapStandard(ResponseMap):
    """Keypoints or edges in the standard protocol: mean over the valid pixels of the split."""

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Responses [N, 1, h, w] against the target [N, 1, H, W], -1..1."""
        errors = self.errors(bilinear(prediction, batch[self.target]), batch)
        if len(errors):
            self.add(num_pixels=len(errors), error=errors.sum())

    def _summarise(self, sums: Sums) -> dict[str, float]:
        return {"err": sums["error"] / sums["num_pixels"]}
