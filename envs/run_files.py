"""Where an experiment keeps its files, under the release's names."""

from dataclasses import dataclass
from pathlib import Path

from utils.config import PathsSection
from utils.files import make_folder


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
        for folder in (self.logs, self.checkpoints, self.results):
            make_folder(folder)

    def checkpoint(self, label: str) -> Path:
        """Checkpoint of a label such as `warmup`, `latest`, `best` or a `retrain_label`."""
        return self.checkpoints / f"{label}_model.pth.tar"

    @staticmethod
    def retrain_label(exp_id: int, policy_iter: str, which: str) -> str:
        """Label of retraining number `exp_id`; `which` is `latest` or `best`."""
        return f"retrain{exp_id:03d}_policyIter{policy_iter}_{which}"

    def gates(self, policy_iter: str, seed: int) -> Path:
        """Sampled gates, as JSON; the release keeps a pickle of the same stem beside it."""
        return self.checkpoints / f"policyIter{policy_iter}_rs{seed:04d}.json"

    def retrained(self, exp_id: int) -> Path:
        """Results of one retrained architecture."""
        return self.results / f"retrain{exp_id:03d}.json"
