"""Evaluate retrained architectures on the whole test split, one image at a time, in both protocols.

Reads, from {exp_name} under `paths.checkpoint_dir`, for each of --exp_ids:
  retrain{exp_id}_policyIter{policy_iter}_{test.which_iter}_model.pth.tar   weights
  policyIter{policy_iter}_rs{seed}.json, or the release's .pickle           gates
Files of the release are read as they are. Writes {exp_name}/test_rs{seed}.json under `paths.result_dir`.
"""

from envs.cost_report import cost_report
from envs.evaluation import evaluate
from envs.experiment import (
    configured_network,
    configured_tasks,
    exp_seed,
    load_architecture,
    load_network,
)
from envs.results import cost_table, metrics_table, test_result
from envs.run import Data, RunFiles
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
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.set, TestingConfig)
    device, device_line = choose_device(arguments.gpus)
    print(device_line)
    files = RunFiles.of(config.paths, config.exp_name)
    seeds = {exp_id: exp_seed(config, exp_id) for exp_id in arguments.exp_ids}
    tasks = configured_tasks(config)
    data = Data(config.dataload, tasks, config.seed[0], device, evaluation_splits=["test"])
    print(*data.notes, sep="\n")
    net = configured_network(config)

    for exp_id, seed in seeds.items():
        path = files.checkpoint(files.retrain_label(exp_id, config.train.policy_iter, config.test.which_iter))
        checkpoint = load_network(net, path)
        gates = load_architecture(net, files.gates(config.train.policy_iter, seed))
        cost = cost_report(net, gates, data.image_size("test"))
        batches = data.evaluation("test", batch_size=1, whole=True)
        evaluation = evaluate(net.to(device), gates, batches, tasks)
        result = files.results / f"test_rs{seed:04d}.json"
        write_json(result, test_result(path, checkpoint.get("iter"), gates, evaluation, cost))
        print(
            f"\narchitecture {exp_id}, seed {seed}, {path}: {evaluation.num_samples} images, "
            f"{evaluation.seconds_per_image:.3f} s per image\n\n"
            f"{metrics_table(evaluation, tasks)}\n\n{cost_table(cost)}\n\n"
            f"executed blocks\n{format_shares(gates)}\n\nresults  {result}"
        )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
