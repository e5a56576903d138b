"""Learn what to share: warm up the network, then learn its weights and its policy in turns.

Writes, into {exp_name} under the folders of `paths`:
  checkpoints   warmup, latest and best (weights and policy), config.yml
  results       policy.json and policy.png: execution probability of every task and block
  logs          log.txt, metrics.jsonl, tensorboard events
Next, re-train.py samples architectures from the policy and trains them.
"""

from envs.data import Data
from envs.experiment import (
    configured_network,
    configured_run,
    configured_tasks,
    curriculum,
    exp_seeds,
    pretrained_state,
    regularisers,
)
from envs.policy_learning import learn_policy, train_without_policy, warm_up
from envs.pretrained import begin_with_imagenet
from envs.restoring import load_without_policy
from envs.run_files import RunFiles
from utils.command_line import next_command, script_parser
from utils.config import load_config, write_config
from utils.devices import choose_device, seed_everything
from utils.errors import exit_on_user_error
from utils.logger import RunLogger

TRAINING_SPLITS = ("train", "train1", "train2")


def main() -> None:
    """Phases 1 and 2 of the paper."""
    arguments = script_parser(__doc__).parse_args()
    config = load_config(arguments.config, arguments.set)
    device, device_line = choose_device(arguments.gpus)
    files = RunFiles.of(config.paths, config.exp_name)
    files.make_folders()
    seed = config.seed[0]
    seed_everything(seed)

    tasks = configured_tasks(config)
    net, vocabulary = configured_network(config, tasks), None
    if config.train.resume:
        vocabulary = load_without_policy(net, files.checkpoint(config.train.which_iter))
    data = Data(config.dataload, tasks, seed, device, TRAINING_SPLITS, ["val"], vocabulary)
    if config.imagenet_pretrain and not config.train.resume:
        begin_with_imagenet(net, pretrained_state(config))
    net.to(device)

    warmed_up = config.policy and config.train.resume
    with RunLogger(files.logs, finished=config.train.warm_up_iters - 1 if warmed_up else 0) as logger:
        for line in [device_line, *data.notes]:
            logger.message(line)
        write_config(config, files.checkpoints / "config.yml")
        run = configured_run(config, net, tasks, data, files, logger)
        if config.policy:
            if not warmed_up:
                warm_up(run)
            best = learn_policy(run, curriculum(config, net.policy), regularisers(config, net.policy))
            logger.message(f"policy   {files.results / 'policy.json'}, policy.png")
        else:
            best = train_without_policy(run)
        logger.message(
            f"best     iteration {best.iteration}, score {best.score:.4f}: {files.checkpoint('best')}\n"
            f"next     {next_command('re-train.py', arguments, exp_seeds(config, None))}"
        )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
