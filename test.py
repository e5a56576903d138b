"""Evaluate retrained architectures on the whole test split, one image at a time, in both protocols.

Reads, from {exp_name} under `paths.checkpoint_dir`, for each of --exp_ids:
  retrain{exp_id}_policyIter{policy_iter}_{test.which_iter}_model.pth.tar   weights
  policyIter{policy_iter}_rs{seed}.json, or the release's .pickle           gates
Files of the release are read as they are. Writes, into {exp_name} under `paths.result_dir`:
  test_rs{seed}.json                    metrics, policy and cost
  pictures/test_rs{seed}_{name}.png     predictions below the truth, for the first --pictures images
With --images it only predicts, for a folder of one's own images, and writes
  pictures/images_rs{seed}_{name}.png
"""

from itertools import islice
from pathlib import Path
from typing import Any

from envs.constant_predictor import fit_constant_predictor
from envs.cost_report import cost_report
from envs.data import Data, own_images
from envs.evaluation import Evaluation, evaluate
from envs.experiment import (
    configured_network,
    configured_tasks,
    exp_seed,
    load_architecture,
    load_network,
)
from envs.pictures import picture_predictions
from envs.results import best_retrained, comparison_table, cost_table, metrics_table, test_result
from envs.run import RunFiles
from envs.tasks import Task
from models.multitask import MultiTaskNet
from models.shared_paths import Gates
from utils.command_line import add_exp_ids, script_parser
from utils.config import TestingConfig, load_config
from utils.devices import choose_device
from utils.errors import exit_on_user_error
from utils.files import write_json
from utils.tables import format_shares


def main() -> None:
    """Test each of --exp_ids."""
    parser = script_parser(__doc__)
    add_exp_ids(parser, [0], "retrained architectures to test")
    parser.add_argument("--best", action="store_true", help="test the best of the retrained ones instead of --exp_ids")
    parser.add_argument("--pictures", type=int, default=4, metavar="N", help="images to picture (default: 4)")
    parser.add_argument(
        "--constant", action="store_true", help="also test the constant predictor, fitted to the train split"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="predict for these images instead of testing")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.set, TestingConfig)
    device, device_line = choose_device(arguments.gpus)
    print(device_line)
    files = RunFiles.of(config.paths, config.exp_name)
    exp_ids = [best_retrained(files.results)] if arguments.best else arguments.exp_ids
    seeds = {exp_id: exp_seed(config, exp_id) for exp_id in exp_ids}
    tasks = configured_tasks(config)
    net = configured_network(config).to(device)
    policy_iter, which_iter = config.train.policy_iter, config.test.which_iter
    pictures = files.results / "pictures"

    for exp_id, seed in seeds.items():
        path = files.checkpoint(files.retrain_label(exp_id, policy_iter, which_iter))
        checkpoint = load_network(net, path)
        gates = load_architecture(net, files.gates(policy_iter, seed))
        print(f"\narchitecture {exp_id}, seed {seed}, {path}: executed blocks\n{format_shares(gates)}")
        if arguments.images:
            batches = own_images(arguments.images, config.dataload.num_workers, device)
            written = picture_predictions(net, gates, batches, tasks, pictures, f"images_rs{seed:04d}")
        else:
            splits = ["test", "train"] if arguments.constant else ["test"]
            data = Data(config.dataload, tasks, seed, device, evaluation_splits=splits)
            constant = test_constant_predictor(data, tasks, gates) if arguments.constant else None
            outcome = test(net, gates, data, tasks, constant)
            result = files.results / f"test_rs{seed:04d}.json"
            write_json(result, {"checkpoint": str(path), "iteration": checkpoint.get("iter"), **outcome})
            batches = islice(data.evaluation("test", 1, whole=True), arguments.pictures)
            written = picture_predictions(net, gates, batches, tasks, pictures, f"test_rs{seed:04d}")
            print(f"results   {result}")
        print(f"pictures  {len(written)} in {pictures}")


def test(
    net: MultiTaskNet, gates: Gates, data: Data, tasks: dict[str, Task], constant: Evaluation | None
) -> dict[str, Any]:
    """Evaluate one architecture, print its tables and return what they hold."""
    for note in data.notes:
        print(note)
    cost = cost_report(net, gates, data.image_size("test"))
    evaluation = evaluate(net, gates, data.evaluation("test", batch_size=1, whole=True), tasks)
    print(f"{evaluation.num_samples} images, {evaluation.seconds_per_image:.3f} s per image")
    print(f"\n{metrics_table(evaluation, tasks)}\n\n{cost_table(cost)}\n")
    if constant:
        print(f"{comparison_table({'network': evaluation, 'constant predictor': constant}, tasks)}\n")
    return test_result(gates, evaluation, constant, cost)


def test_constant_predictor(data: Data, tasks: dict[str, Task], gates: Gates) -> Evaluation:
    """Fit the constant predictor to the train split, and evaluate it as the network is."""
    predictor = fit_constant_predictor(data.evaluation("train", batch_size=1, whole=True), tasks)
    return evaluate(predictor, gates, data.evaluation("test", batch_size=1, whole=True), tasks)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
