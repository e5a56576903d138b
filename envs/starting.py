"""Where train.py starts: with a new network, with the weights of an earlier warm-up, or where a run was stopped."""

from dataclasses import dataclass
from pathlib import Path

from envs.data import Data
from envs.experiment import pretrained_state
from envs.pretrained import begin_with_imagenet
from envs.restoring import load_without_policy
from envs.resuming import StoppedRun, refuse_another_run, refuse_other_data, refuse_to_write_over, stopped_run
from envs.run_files import RunFiles
from models.multitask import MultiTaskNet
from utils.config import TrainingConfig


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        phase: the first one to come: "warm-up", "policy" or "training" (without a policy).
        iteration: the last one that is done.
        log_position: bytes of `metrics.jsonl` that were written by then.
        vocabulary: the words that the network has learned; None for images, and for a new network.
        notes: what the user should know about it.
        weights: the checkpoint that the network's weights are from (`train.resume`).
        stopped: the run to go on with.
    """

    phase: str
    iteration: int = 0
    log_position: int = 0
    vocabulary: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    weights: Path | None = None
    stopped: StoppedRun | None = None

    def settle(self, data: Data, files: RunFiles, overwrite: bool) -> None:
        """Make sure that a new run may begin, or that a stopped one can go on.

        Raises:
            UserError: there is an earlier run in the way, or the data are not those that a stopped one had.
        """
        if self.stopped:
            refuse_other_data(self.stopped, data)
        else:
            refuse_to_write_over(files.left_by_training(but=self.weights), overwrite)

    def make_room(self, files: RunFiles) -> None:
        """Now that nothing can go wrong any more, remove what an earlier run left; a stopped one keeps all."""
        if not self.stopped:
            for path in files.left_by_training(but=self.weights):
                path.unlink()


def starting_point(config: TrainingConfig, net: MultiTaskNet, files: RunFiles, resume: bool, overwrite: bool) -> Start:
    """Find where to start, and give a network that does so its weights; a stopped one gets them with its phase.

    Args:
        resume, overwrite: what shall become of a run that is found.

    Raises:
        UserError: a run is found that nothing was said about, or that is not of this configuration; a checkpoint is
            missing or does not fit the network.
    """
    phases = ["warm-up", "policy"] if config.policy else ["training"]
    stopped = stopped_run(files.of_training(), phases, resume, overwrite)
    if stopped:
        changes = refuse_another_run(stopped, config, config.seed[0])
        state, notes = stopped.state, (*stopped.notes, *changes)
        return Start(state.phase, state.iteration, state.log_position, stopped.vocabulary, notes=notes, stopped=stopped)
    if config.train.resume:
        weights = files.checkpoint(config.train.which_iter)
        warmed_up = load_without_policy(net, weights)
        # What this run's own warm-up has logged is kept; the log of anything else would count iterations twice.
        iteration = max(config.train.warm_up_iters - 1, 0)
        goes_on = config.policy and (warmed_up.phase, warmed_up.iteration) == ("warm-up", iteration)
        iteration, position = (iteration, warmed_up.log_position) if goes_on else (0, 0)
        return Start(phases[-1], iteration, position, warmed_up.vocabulary, weights=weights)
    if config.imagenet_pretrain:
        begin_with_imagenet(net, pretrained_state(config))
    return Start("warm-up" if config.policy else "training")
