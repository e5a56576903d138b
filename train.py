"""Learn what to share: warm up the network, then learn its weights and its policy in turns.

Writes, into {exp_name} under the folders of `paths`:
  checkpoints   warmup, latest and best (weights and policy), previous (the latest before), config.yml
  results       policy.json and policy.png: execution probability of every task and block
  logs          log.txt, metrics.jsonl, tensorboard events
SIGTERM and Ctrl+C finish the step, save and stop; --resume goes on, after a crash too.
Next, re-train.py samples architectures from the policy and trains them.
"""

from argparse import Namespace

from envs.data import Data
from envs.experiment import (
    configured_network,
    configured_run,
    configured_tasks,
    curriculum,
    exp_seeds,
    prepare_to_train,
    regularisers,
)
from envs.policy_learning import learn_policy, train_without_policy, warm_up
from envs.run_files import RUN, RunFiles
from envs.starting import starting_point
from utils.command_line import add_processes, add_resume, next_command, script_parser
from utils.config import TrainingConfig, load_config, write_config
from utils.devices import choose_device, seed_everything
from utils.distributed import done_by_first, first_process_ahead, joined_processes
from utils.errors import exit_on_user_error
from utils.interruption import Interruption
from utils.launching import launch
from utils.logger import open_log
from utils.placement import processes_of_run
from utils.precision import notes_on_precision
from utils.run_lock import locked

TRAINING_SPLITS = ("train", "train1", "train2")


def main() -> None:
    """Phases 1 and 2 of the paper, by one process, or by several that share the batches."""
    parser = script_parser(__doc__)
    add_processes(parser)
    add_resume(parser)
    arguments = parser.parse_args()
    launch(processes_of_run(arguments.gpus, arguments.processes))
    with joined_processes():
        config = load_config(arguments.config, arguments.set)
        files = RunFiles.of(config.paths, config.exp_name)
        files.make_folders()
        with locked(files.folders, RUN):
            done_by_first(files.tidy)
            train(arguments, config, files)


def train(arguments: Namespace, config: TrainingConfig, files: RunFiles) -> None:
    """Begin a run, or go on with one, and see it through."""
    device, device_line = choose_device(arguments.gpus)
    prepare_to_train(config.train, device)
    seed = config.seed[0]
    seed_everything(seed)
    tasks = configured_tasks(config)
    with first_process_ahead():
        net = configured_network(config, tasks)
        start = starting_point(config, net, files, arguments.resume, arguments.overwrite)
        net.to(device)
        data = Data(config.dataload, tasks, seed, device, TRAINING_SPLITS, ["val"], start.vocabulary)
        data.refuse_unequal_parts(config.train.batch_size)
        start.settle(data, files, arguments.overwrite)
        data = data.decoded()
        start.make_room(files)

    with open_log(files.logs, start.iteration, start.log_position) as logger, Interruption() as interruption:
        for line in [device_line, *notes_on_precision(config.train.precision, device), *data.notes, *start.notes]:
            logger.message(line)
        done_by_first(write_config, config, files.checkpoints / "config.yml")
        run = configured_run(config, net, tasks, data, files, files.of_training(), logger, interruption)
        if start.phase == "warm-up":
            warm_up(run, start.stopped)
        if config.policy:
            stopped = start.stopped if start.phase == "policy" else None
            best = learn_policy(run, curriculum(config, net.policy), regularisers(config, net.policy), stopped)
            logger.message(f"policy   {files.results / 'policy.json'}, policy.png")
        else:
            best = train_without_policy(run, start.stopped)
        logger.message(
            f"best     iteration {best.iteration}, score {best.score:.4f}: {run.checkpoints.best}\n"
            f"next     {next_command('re-train.py', arguments, exp_seeds(config, None), parallel=True)}"
        )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
