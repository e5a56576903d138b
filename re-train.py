"""Sample architectures from the learned policy, one per seed, and train each from scratch.

Reads the checkpoint `train.policy_iter` (best) that train.py wrote. Writes, into {exp_name} under the folders of
`paths`, for each of --exp_ids:
  checkpoints   policyIter{policy_iter}_rs{seed}.json: the sampled gates
                retrain{exp_id}_policyIter{policy_iter}_latest, _previous and _best, retrain{exp_id}_config.yml
  results       retrain{exp_id}.json, and of all runs so far retrain.json: best, mean, standard deviation
  logs          retrain{exp_id}/: log.txt, metrics.jsonl, tensorboard events
SIGTERM and Ctrl+C finish the step, save and stop; --resume goes on, after a crash too, and skips what is retrained.
With --parallel, several are retrained at once, each on a GPU of its own.
Next, test.py evaluates an architecture on the whole test split.
"""

import sys
from argparse import Namespace
from contextlib import suppress
from functools import partial

import torch

from envs.cost_report import cost_report
from envs.experiment import configured_run, configured_tasks, exp_seeds, prepare_to_train
from envs.results import collect_retraining, retraining_result, retraining_table, summarise
from envs.retraining import RetrainingPlan, network_to_retrain, plan_retraining, retrain, stopped_retraining
from envs.run_files import RUN, RunFiles
from models.multitask import MultiTaskNet
from models.shared_paths import HardGates
from utils.checkpoint import save_gates
from utils.command_line import (
    add_exp_ids,
    add_parallel,
    add_processes,
    add_resume,
    next_command,
    run_options,
    script_parser,
)
from utils.config import TrainingConfig, load_config, write_config
from utils.devices import choose_device, seed_everything
from utils.distributed import done_by_first, first_process_ahead, joined_processes
from utils.errors import UserError, exit_on_user_error
from utils.files import write_json
from utils.interruption import Interruption
from utils.launching import launch, run_side_by_side
from utils.logger import open_log
from utils.placement import places_side_by_side, processes_of_run
from utils.precision import notes_on_precision
from utils.run_lock import locked
from utils.tables import format_shares


def main() -> None:
    """Phase 3 of the paper, for each of --exp_ids; others may be retrained at the same time."""
    parser = script_parser(__doc__)
    add_exp_ids(parser, "the first eight", "architectures to sample and retrain")
    add_resume(parser)
    shared = parser.add_mutually_exclusive_group()
    add_processes(shared)
    add_parallel(shared)
    arguments = parser.parse_args()
    one_by_one = arguments.parallel is None
    launch(processes_of_run(arguments.gpus, arguments.processes) if one_by_one else 1)
    with joined_processes():
        config = load_config(arguments.config, arguments.set)
        files = RunFiles.of(config.paths, config.exp_name)
        seeds = exp_seeds(config, arguments.exp_ids)
        files.make_folders()
        done_by_first(tidy_unless_in_use, files)
        with locked(files.folders, RUN, shared=True):
            retrain_architectures = retrain_one_by_one if one_by_one else retrain_side_by_side
            retrain_architectures(arguments, config, files, seeds)


def tidy_unless_in_use(files: RunFiles) -> None:
    """Remove what killed processes left half-written, where no other process is at work."""
    with suppress(UserError), locked(files.folders, RUN, patience=0):
        files.tidy()


def retrain_one_by_one(arguments: Namespace, config: TrainingConfig, files: RunFiles, seeds: dict[int, int]) -> None:
    """Train what is not trained yet, in this process or in several that share the batches, and collect the results."""
    device, device_line = choose_device(arguments.gpus)
    prepare_to_train(config.train, device)
    print(device_line, *notes_on_precision(config.train.precision, device), sep="\n")
    with locked(files.folders, *map(files.retrain_lock, seeds)):
        with first_process_ahead():
            plan = plan_all(arguments, config, files, seeds, device)
        with Interruption() as interruption:
            for exp_id, seed in plan.remaining.items():
                seed_everything(seed)
                net = network_to_retrain(config, plan).to(device)
                retrain_architecture(config, files, plan, exp_id, net, interruption)
    done_by_first(collect_results, arguments, config, files, plan.architectures)


def retrain_side_by_side(arguments: Namespace, config: TrainingConfig, files: RunFiles, seeds: dict[int, int]) -> None:
    """Train what is not trained yet, each in a process of its own, and collect the results."""
    places, device_line = places_side_by_side(arguments.gpus, arguments.parallel)
    print(device_line)
    with locked(files.folders, *map(files.retrain_lock, seeds)):
        plan = plan_all(arguments, config, files, seeds, torch.device("cpu"))
    architectures, remaining = plan.architectures, plan.remaining
    del plan  # The processes have networks and data of their own.

    runs = {
        f"architecture {exp_id}, seed {seed}": partial(options_of_one, arguments, exp_id)
        for exp_id, seed in remaining.items()
    }
    codes = run_side_by_side(runs, places)
    collect_results(arguments, config, files, architectures)
    failed = [name for name, code in codes.items() if code]
    if failed:
        print(f"error: not retrained: {'; '.join(failed)}; --resume goes on with them", file=sys.stderr)
        sys.exit(codes[failed[0]])


def options_of_one(arguments: Namespace, exp_id: int, gpu: int) -> list[str]:
    """The command line that retrains one architecture, for which room has been made, or goes on with it."""
    return [*run_options(arguments, [gpu], [exp_id]), "--resume"]


def plan_all(
    arguments: Namespace, config: TrainingConfig, files: RunFiles, seeds: dict[int, int], device: torch.device
) -> RetrainingPlan:
    """Look at all input, and tell what has been retrained already."""
    resume = arguments.resume or (config.train.retrain_resume and not arguments.overwrite)
    plan = plan_retraining(config, files, seeds, device, resume, arguments.overwrite)
    for exp_id in seeds.keys() - plan.remaining.keys():
        print(f"architecture {exp_id} is retrained already: {files.retrained(exp_id)}")
    return plan


def collect_results(
    arguments: Namespace, config: TrainingConfig, files: RunFiles, architectures: dict[int, HardGates]
) -> None:
    """Summarise all architectures that are retrained by now."""
    with locked([files.results], "summary", patience=60):
        runs = collect_retraining(files, architectures, config)
        if not runs:
            return
        summary = summarise(runs)
        write_json(files.summary, {"runs": runs, **summary})
    print(
        f"\n{retraining_table(runs, summary, configured_tasks(config))}\n\n"
        f"results  {files.summary}\n"
        f"next     {next_command('test.py', arguments, [summary['best']['exp_id']])}"
    )


def retrain_architecture(
    config: TrainingConfig,
    files: RunFiles,
    plan: RetrainingPlan,
    exp_id: int,
    net: MultiTaskNet,
    interruption: Interruption,
) -> None:
    """Train one architecture, or go on with it, and write its gates and results."""
    policy_iter, seed, gates = config.train.policy_iter, plan.remaining[exp_id], plan.architectures[exp_id]
    data = plan.data.with_seed(seed)
    cost = done_by_first(cost_report, net, gates, data.example("val"))
    with first_process_ahead():
        stopped = stopped_retraining(config, files, exp_id, gates, data, resume=True, overwrite=False)
    earlier = (stopped.state.iteration, stopped.state.log_position) if stopped else (0, 0)
    with open_log(files.logs / f"retrain{exp_id:03d}", *earlier) as logger:
        logger.message(f"architecture {exp_id}, seed {seed}: executed blocks\n{format_shares(gates)}")
        for note in [*data.notes, *(stopped.notes if stopped else ())]:
            logger.message(note)
        checkpoints = files.of_retraining(exp_id, policy_iter)
        run = configured_run(config, net, plan.tasks, data, files, checkpoints, logger, interruption)
        done_by_first(save_gates, files.gates(policy_iter, seed), gates)
        done_by_first(write_config, config, files.checkpoints / f"retrain{exp_id:03d}_config.yml")
        best = retrain(run, gates, exp_id, stopped)
        logger.message(f"architecture {exp_id}: best score {best.score:.4f} at iteration {best.iteration}")
    done_by_first(write_json, files.retrained(exp_id), retraining_result(exp_id, seed, config, gates, best, cost))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
