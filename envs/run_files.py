"""Where an experiment keeps its files, under the release's names."""

from dataclasses import dataclass
from pathlib import Path

from utils.config import PathsSection
from utils.files import make_folder, remove_unfinished

RUN = "run"
"""Lock of an experiment's folders: train.py holds it alone, calls of re-train.py and test.py share it."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        latest: what it goes on from after a stop.
        previous: the `latest` before, in case that one is damaged.
        best: what its best evaluation was of.
    """

    latest: Path
    previous: Path
    best: Path

    def can_be_resumed(self) -> bool:
        """Whether there is something to go on from; a kill between two renames leaves `previous` alone."""
        return self.latest.exists() or self.previous.exists()


@dataclass(frozen=True)
class RunFiles:
    """The folders of one experiment, and the names of what lies in them."""

    logs: Path
    checkpoints: Path
    results: Path

    @classmethod
    def of(cls, paths: PathsSection, exp_name: str) -> "RunFiles":
        """`{log_dir}/{exp_name}` and its siblings."""
        return cls(*(Path(folder) / exp_name for folder in (paths.log_dir, paths.checkpoint_dir, paths.result_dir)))

    def make_folders(self) -> None:
        """Make the folders; raises `UserError` where one cannot be made or written to."""
        for folder in self.folders:
            make_folder(folder)

    def tidy(self) -> None:
        """Remove what killed processes left half-written; only for who holds `RUN` alone."""
        for folder in self.folders:
            remove_unfinished(folder.iterdir())

    def left_by_training(self, but: Path | None = None) -> list[Path]:
        """Checkpoints and policy of an earlier train.py, `but` the checkpoint that a new run begins from.

        With the policy goes the summary of the architectures sampled from it, the best of which test.py would take.
        `previous` comes first: where it is gone and `latest` is not, nothing is lost yet.
        """
        training = self.of_training()
        paths = (training.previous, training.latest, training.best, self.checkpoint("warmup"))
        policy = (self.results / "policy.json", self.results / "policy.png")
        return [path for path in (*paths, *policy, self.summary) if path != but and path.exists()]

    def left_by_retraining(self, exp_id: int, policy_iter: str) -> list[Path]:
        """The checkpoints and results of an earlier retraining of this number."""
        retraining = self.of_retraining(exp_id, policy_iter)
        paths = (self.retrained(exp_id), retraining.previous, retraining.latest, retraining.best)
        return [path for path in paths if path.exists()]

    @staticmethod
    def retrain_lock(exp_id: int) -> str:
        """Name of the lock of retraining number `exp_id`."""
        return f"retrain{exp_id:03d}"

    @property
    def folders(self) -> tuple[Path, ...]:
        """All three."""
        return self.logs, self.checkpoints, self.results

    def checkpoint(self, label: str) -> Path:
        """Checkpoint of a label such as `warmup`, `latest` or `best`."""
        return self.checkpoints / f"{label}_model.pth.tar"

    def retrain_checkpoint(self, exp_id: int, policy_iter: str, label: str) -> Path:
        """Checkpoint `latest`, `previous` or `best` of retraining number `exp_id`."""
        return self.checkpoint(f"retrain{exp_id:03d}_policyIter{policy_iter}_{label}")

    def of_training(self) -> Checkpoints:
        """Those of train.py."""
        return Checkpoints(*map(self.checkpoint, ("latest", "previous", "best")))

    def of_retraining(self, exp_id: int, policy_iter: str) -> Checkpoints:
        """Those of retraining number `exp_id`."""
        labels = ("latest", "previous", "best")
        return Checkpoints(*(self.retrain_checkpoint(exp_id, policy_iter, label) for label in labels))

    def gates(self, policy_iter: str, seed: int) -> Path:
        """Sampled gates, as JSON; the release keeps a pickle of the same stem beside it."""
        return self.checkpoints / f"policyIter{policy_iter}_rs{seed:04d}.json"

    @property
    def summary(self) -> Path:
        """Results of all architectures that have been retrained."""
        return self.results / "retrain.json"

    def retrained(self, exp_id: int) -> Path:
        """Results of one retrained architecture."""
        return self.results / f"retrain{exp_id:03d}.json"
