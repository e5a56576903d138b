"""Metric of classification, of images or texts: accuracy and cross-entropy."""

from torch import Tensor
from torch.nn import functional as F

from envs.losses import Batch
from envs.metrics.metric import Metric, Sums


class Classification(Metric):
    """Share of samples whose likeliest class is the true one (0..1), and mean cross-entropy (nats).

    Every sample weighs the same, in the release as by the standard, so one metric serves both protocols.

    Args:
        target: the entry of the batch with the class numbers.
    """

    names = ("accuracy", "err")

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Logits [N, C] against class numbers int64 [N], 0..C-1."""
        classes = batch[self.target]
        self.add(
            num_samples=len(classes),
            hits=(prediction.argmax(dim=1) == classes).sum(),
            cross_entropy=F.cross_entropy(prediction.double(), classes, reduction="sum"),
        )

    def _summarise(self, sums: Sums) -> dict[str, float]:
        return {
            "accuracy": sums["hits"] / sums["num_samples"],
            "err": sums["cross_entropy"] / sums["num_samples"],
        }
