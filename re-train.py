"""Sample architectures from the learned policy, one per seed, and train each from scratch.

Reads the checkpoint `train.policy_iter` (best) that train.py wrote. Writes, into {exp_name} under the folders of
`paths`, for each of --exp_ids:
  checkpoints   policyIter{policy_iter}_rs{seed}.json: the sampled gates
                retrain{exp_id}_policyIter{policy_iter}_latest and ..._best, retrain{exp_id}_config.yml
  results       retrain{exp_id}.json, and of all runs so far retrain.json: best, mean, standard deviation
  logs          retrain{exp_id}/: log.txt, metrics.jsonl, tensorboard events
Next, test.py evaluates an architecture on the whole test split.
"""

from envs.cost_report import cost_report
from envs.data import Data
from envs.experiment import (
    configured_network,
    configured_run,
    configured_tasks,
    exp_seeds,
    pretrained_state,
    sampled_architecture,
)
from envs.pretrained import begin_with_imagenet
from envs.restoring import load_learned_policy
from envs.results import collect_retraining, retraining_result, retraining_table, summarise
from envs.retraining import interrupted_state, retrain
from envs.run_files import RunFiles
from envs.tasks import Task
from models.multitask import MultiTaskNet
from models.shared_paths import HardGates
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
    add_exp_ids(parser, "the first eight", "architectures to sample and retrain")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.set)
    device, device_line = choose_device(arguments.gpus)
    print(device_line)
    files = RunFiles.of(config.paths, config.exp_name)
    files.make_folders()
    seeds = exp_seeds(config, arguments.exp_ids)

    # Everything that can be wrong with the input is looked at before the first network trains.
    tasks = configured_tasks(config)
    learned_net = configured_network(config, tasks).to(device)
    learned = load_learned_policy(learned_net, files.checkpoint(config.train.policy_iter))
    architectures = {exp_id: sampled_architecture(config, learned, seed) for exp_id, seed in enumerate(config.seed)}
    data = Data(config.dataload, tasks, config.seed[0], device, ["train"], ["val"], learned.vocabulary)
    pretrained = None if config.retrain_from_pl else pretrained_state(config)
    collect_retraining(files, architectures)
    if config.train.retrain_resume:
        for exp_id in seeds:
            interrupted_state(files, exp_id, config.train.policy_iter, architectures[exp_id], learned.vocabulary)

    for exp_id, seed in seeds.items():
        seed_everything(seed)
        net = configured_network(config, tasks).to(device)
        if config.retrain_from_pl:
            net.load_state_dict(learned_net.state_dict())
        elif pretrained:
            begin_with_imagenet(net, pretrained)
        retrain_architecture(config, exp_id, architectures[exp_id], net, tasks, data.with_seed(seed), files)
    runs = collect_retraining(files, architectures)
    summary = summarise(runs)
    write_json(files.results / "retrain.json", {"runs": runs, **summary})
    print(
        f"\n{retraining_table(runs, summary, tasks)}\n\n"
        f"results  {files.results / 'retrain.json'}\n"
        f"next     {next_command('test.py', arguments, [summary['best']['exp_id']])}"
    )


def retrain_architecture(
    config: TrainingConfig,
    exp_id: int,
    gates: HardGates,
    net: MultiTaskNet,
    tasks: dict[str, Task],
    data: Data,
    files: RunFiles,
) -> None:
    """Train one architecture and write its gates and results."""
    policy_iter, seed = config.train.policy_iter, data.seed
    cost = cost_report(net, gates, data.example("val"))
    resume = config.train.retrain_resume
    interrupted = interrupted_state(files, exp_id, policy_iter, gates, data.vocabulary) if resume else None
    with RunLogger(files.logs / f"retrain{exp_id:03d}", interrupted["iter"] if interrupted else 0) as logger:
        logger.message(f"architecture {exp_id}, seed {seed}: executed blocks\n{format_shares(gates)}")
        for note in data.notes:
            logger.message(note)
        run = configured_run(config, net, tasks, data, files, logger)
        save_gates(files.gates(policy_iter, seed), gates)
        write_config(config, files.checkpoints / f"retrain{exp_id:03d}_config.yml")
        best = retrain(run, gates, exp_id, interrupted)
        logger.message(f"architecture {exp_id}: best score {best.score:.4f} at iteration {best.iteration}")
    write_json(files.retrained(exp_id), retraining_result(exp_id, seed, policy_iter, gates, best, cost))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
