"""Evaluate retrained architectures on the whole test split, one image or text at a time, in both protocols.

Reads, from {exp_name} under `paths.checkpoint_dir`, for each of --exp_ids:
  retrain{exp_id}_policyIter{policy_iter}_{test.which_iter}_model.pth.tar   weights
  policyIter{policy_iter}_rs{seed}.json, or the release's .pickle           gates
Files of the release are read as they are. Writes, into {exp_name} under `paths.result_dir`:
  test_rs{seed}.json                           metrics, policy and cost
  pictures/test_rs{seed}_{number}_{name}.png   predictions below the truth, for the first --pictures images
With --images it only predicts, for a folder of one's own images, and writes
  pictures/images_rs{seed}_{number}_{name}.png
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from envs.constant_predictor import fit_constant_predictor
from envs.cost_report import cost_report
from envs.data import Data, own_images
from envs.evaluation import Evaluation, evaluate
from envs.experiment import configured_network, configured_tasks, exp_seeds
from envs.pictures import picture_predictions
from envs.restoring import common_vocabulary, load_network, read_retrained
from envs.results import arithmetic, best_retrained, comparison_table, cost_table, metrics_table, test_result
from envs.run_files import RUN, RunFiles
from envs.tasks import Task
from models.inference import prepare_for_inference
from models.multitask import MultiTaskNet
from models.shared_paths import HardGates, all_blocks
from utils.command_line import add_exp_ids, add_processes, not_negative, script_parser
from utils.config import TestingConfig, load_config
from utils.devices import choose_device
from utils.distributed import done_by_first, first_process_ahead, joined_processes
from utils.errors import exit_on_user_error
from utils.files import make_folder, write_json
from utils.launching import launch
from utils.placement import processes_of_run
from utils.precision import allow_tf32, notes_on_precision
from utils.run_lock import locked
from utils.tables import format_shares


def main() -> None:
    """Test the chosen architectures, while no train.py is at work in their folder."""
    arguments = parse_arguments()
    launch(processes_of_run(arguments.gpus, arguments.processes))
    with joined_processes():
        config = load_config(arguments.config, arguments.set, TestingConfig)
        files = RunFiles.of(config.paths, config.exp_name)
        make_folder(files.results)
        with locked([files.results], RUN, shared=True):
            test_architectures(arguments, config, files)


def test_architectures(arguments: Namespace, config: TestingConfig, files: RunFiles) -> None:
    """Read everything, then test, or only picture, one architecture after the other."""
    device, device_line = choose_device(arguments.gpus)
    allow_tf32(config.train.tf32)
    print(device_line, *notes_on_precision(config.train.precision, device), sep="\n")
    seeds = best_retrained(files) if arguments.best else exp_seeds(config, arguments.exp_ids or [0])
    tasks = configured_tasks(config)
    net = configured_network(config, tasks).to(device)
    policy_iter = config.train.policy_iter

    # All are read before the first is tested, so that nothing that is wrong comes late.
    architectures = {}
    with first_process_ahead():
        for exp_id, seed in seeds.items():
            checkpoint = files.retrain_checkpoint(exp_id, policy_iter, config.test.which_iter)
            architectures[exp_id] = read_retrained(net, files.gates(policy_iter, seed), checkpoint)
        if arguments.images:
            images = own_images(arguments.images, config.dataload, tasks, device)
        else:
            splits = ["test", "train"] if arguments.constant else ["test"]
            vocabulary = common_vocabulary(architectures.values())
            data = Data(config.dataload, tasks, config.seed[0], device, (), splits, vocabulary).decoded()
            for note in data.notes:
                print(note)
    constant = test_constant_predictor(data, tasks, device) if arguments.constant else None

    for exp_id, seed in seeds.items():
        architecture = architectures[exp_id]
        path, gates = architecture.checkpoint, architecture.gates
        load_network(net, path)
        print(f"\narchitecture {exp_id}, seed {seed}, {path}: executed blocks\n{format_shares(gates)}")
        prepared = prepare_for_inference(net, gates, "inductor" if config.train.compile else None)
        if arguments.images:
            batches, prefix = images, f"images_rs{seed:04d}"
        else:
            outcome = test(net, prepared, gates, data, tasks, constant)
            origin = {"checkpoint": str(path), "iteration": architecture.iteration}
            result = files.results / f"test_rs{seed:04d}.json"
            done_by_first(write_json, result, {**origin, "arithmetic": arithmetic(config.train), **outcome})
            print(f"results   {result}")
            batches, prefix = data.first_samples("test", arguments.pictures), f"test_rs{seed:04d}"
        folder, names = files.results / "pictures", architecture.class_names
        written = done_by_first(picture_predictions, prepared, gates, batches, tasks, folder, prefix, names)
        if written:
            print(f"pictures  {len(written)} in {files.results / 'pictures'}")


def parse_arguments() -> Namespace:
    """The command line of test.py."""
    parser = script_parser(__doc__)
    add_processes(parser)
    which = parser.add_mutually_exclusive_group()
    add_exp_ids(which, "0", "retrained architectures to test")
    which.add_argument("--best", action="store_true", help="test the best of the retrained ones")
    parser.add_argument("--pictures", type=not_negative, default=4, metavar="N", help="images to picture (default: 4)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--constant", action="store_true", help="also test the constant predictor, fitted to the train split"
    )
    what.add_argument("--images", type=Path, metavar="FOLDER", help="predict for these images instead of testing")
    return parser.parse_args()


def test(
    net: MultiTaskNet,
    prepared: MultiTaskNet,
    gates: HardGates,
    data: Data,
    tasks: dict[str, Task],
    constant: Evaluation | None,
) -> dict[str, Any]:
    """Evaluate one architecture, prepared for inference, print its tables and return what they hold."""
    evaluation = evaluate(prepared, gates, data.evaluation("test", batch_size=1, whole=True), tasks)
    cost = done_by_first(cost_report, net, gates, data.example("test"))
    print(f"{evaluation.num_samples} inputs\n\n{metrics_table(evaluation, tasks)}\n\n{cost_table(cost)}\n")
    if constant:
        print(f"{comparison_table({'network': evaluation, 'constant predictor': constant}, tasks)}\n")
    return test_result(gates, evaluation, constant, cost)


def test_constant_predictor(data: Data, tasks: dict[str, Task], device: torch.device) -> Evaluation:
    """Fit the constant predictor to the train split, and evaluate it as the network is."""
    predictor = fit_constant_predictor(data.evaluation("train", batch_size=1, whole=True), tasks)
    batches = data.evaluation("test", batch_size=1, whole=True)
    return evaluate(predictor.to(device), all_blocks(tasks, 0), batches, tasks)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
