"""Sample architectures from the learned policy, one per seed, and train each from scratch.

Reads the checkpoint `train.policy_iter` (best) that train.py wrote. Writes, into {exp_name} under the folders of
`paths`, for each of --exp_ids:
  checkpoints   policyIter{policy_iter}_rs{seed}.json: the sampled gates
                retrain{exp_id}_policyIter{policy_iter}_latest and ..._best
  results       retrain{exp_id}.json, and of all runs so far retrain.json: best, mean, standard deviation
  logs          retrain{exp_id}/: log.txt, metrics.jsonl, tensorboard events
Next, test.py evaluates an architecture on the whole test split.
"""

import torch

from envs.cost_report import cost_report
from envs.data import Data
from envs.experiment import (
    configured_network,
    configured_run,
    configured_tasks,
    exp_seed,
    load_network,
    sampled_architecture,
)
from envs.results import collect_retraining, retraining_result, retraining_table, summarise
from envs.retraining import retrain
from envs.run import RunFiles
from models.multitask import MultiTaskNet
from utils.checkpoint import save_gates
from utils.command_line import add_exp_ids, next_command, script_parser
from utils.config import TrainingConfig, load_config, write_config
from utils.devices import choose_device, seed_everything
from utils.errors import exit_on_user_error
from utils.files import write_json
from utils.logger import RunLogger
from utils.tables import format_shares


def main() -> None:
    """Phase 3 of the paper, for each of --exp_ids."""
    parser = script_parser(__doc__)
    add_exp_ids(parser, [0, 1, 2, 3, 4, 5, 6, 7], "architectures to sample and retrain")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.set)
    device, device_line = choose_device(arguments.gpus)
    print(device_line)
    files = RunFiles.of(config.paths, config.exp_name)
    seeds = {exp_id: exp_seed(config, exp_id) for exp_id in arguments.exp_ids}
    learned = configured_network(config)
    load_network(learned, files.checkpoint(config.train.policy_iter))

    for exp_id, seed in seeds.items():
        retrain_architecture(config, learned, exp_id, seed, files, device)
    tasks = configured_tasks(config)
    architectures = {i: sampled_architecture(config, learned, seed) for i, seed in enumerate(config.seed)}
    runs = collect_retraining(files.results, architectures)
    summary = summarise(runs)
    write_json(files.results / "retrain.json", {"runs": runs, **summary})
    print(
        f"\n{retraining_table(runs, summary, tasks)}\n\n"
        f"results  {files.results / 'retrain.json'}\n"
        f"next     {next_command('test.py', arguments, [summary['best']['exp_id']])}"
    )


def retrain_architecture(
    config: TrainingConfig, learned: MultiTaskNet, exp_id: int, seed: int, files: RunFiles, device: torch.device
) -> None:
    """Sample one architecture, train it and write its results."""
    gates = sampled_architecture(config, learned, seed)
    save_gates(files.gates(config.train.policy_iter, seed), gates)
    tasks = configured_tasks(config)
    data = Data(config.dataload, tasks, seed, device, ["train"], ["val"])
    seed_everything(seed)
    net = configured_network(config)
    if config.retrain_from_pl:
        net.load_state_dict(learned.state_dict())
    cost = cost_report(net, gates, data.image_size("val"))
    with RunLogger(files.logs / f"retrain{exp_id:03d}", continued=config.train.retrain_resume) as logger:
        logger.message(f"architecture {exp_id}, seed {seed}: executed blocks\n{format_shares(gates)}")
        for note in data.notes:
            logger.message(note)
        write_config(config, files.checkpoints / f"retrain{exp_id:03d}_config.yml")
        run = configured_run(config, net.to(device), tasks, data, files, logger)
        best = retrain(run, gates, exp_id)
        logger.message(f"architecture {exp_id}: best score {best.score:.4f} at iteration {best.iteration}")
    result = retraining_result(exp_id, seed, config.train.policy_iter, gates, best, cost)
    write_json(files.results / f"retrain{exp_id:03d}.json", result)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
