"""From a configuration to the parts of a run: the network, the architectures, what is refused."""

from pathlib import Path

import pytest

from envs.experiment import configured_network, configured_tasks, curriculum, exp_seeds, sampled_architecture
from envs.restoring import LearnedPolicy
from models.policy import Policy
from models.resnet import LAYOUTS
from utils.config import NUM_BLOCKS, TrainingConfig, load_config
from utils.errors import UserError

TWO_TASKS = Path(__file__).parents[1] / "yamls" / "adashare" / "nyu_v2_2task.yml"


def configured(*values: str) -> TrainingConfig:
    return load_config(TWO_TASKS, ["backbone_width=4", "head_width=4", *values])


def test_every_backbone_that_can_be_configured_exists_and_the_other_way_round() -> None:
    assert NUM_BLOCKS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("backbone", NUM_BLOCKS)
def test_a_backbone_has_as_many_blocks_as_the_configuration_believes(backbone: str) -> None:
    net = configured_network(configured(f"backbone={backbone}"))
    assert net.num_blocks == NUM_BLOCKS[backbone]
    assert all(len(logits) == NUM_BLOCKS[backbone] for logits in net.policy.logits.values())


def test_the_network_has_the_tasks_in_the_configurations_order() -> None:
    config = configured("tasks=[sn, depth, seg]", "tasks_num_class=[3, 1, 13]", "lambdas=[1, 1, 1]", "skip_layer=2")
    net = configured_network(config)
    assert list(net.heads) == list(net.policy.logits) == list(configured_tasks(config)) == ["sn", "depth", "seg"]
    assert [head.branches[0].conv3.out_channels for head in net.heads.values()] == [3, 1, 13]
    assert all(len(logits) == 6 for logits in net.policy.logits.values())


@pytest.mark.parametrize(
    ("key", "value", "known"),
    [
        ("policy_model", "instance-specific", "task-specific"),
        ("imagenet_pretrain", "True", "False"),
        ("task_bn", "True", "False"),
        ("dataload.small_res", "True", "False"),
    ],
)
def test_variants_of_the_release_that_do_not_exist_here_are_refused(key: str, value: str, known: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}: {value} is not available in this version; leave it at {known}"):
        configured_network(configured(f"{key}={value}"))


def test_exp_ids_are_indices_into_the_seeds() -> None:
    config = configured("seed=[11, 12, 13, 14, 15, 16, 17, 18, 19]")
    assert exp_seeds(config, [8, 0]) == {8: 19, 0: 11}
    assert exp_seeds(config, None) == {exp_id: 11 + exp_id for exp_id in range(8)}
    assert exp_seeds(configured("seed=[7, 9]"), None) == {0: 7, 1: 9}
    for exp_id in (-1, 9):
        with pytest.raises(UserError, match=rf"--exp_ids {exp_id}: .*9 seeds, .*0 to 8"):
            exp_seeds(config, [0, exp_id])


def test_a_policy_whose_curriculum_ended_early_keeps_its_closed_blocks_closed() -> None:
    policy = Policy(["seg", "sn"], 8, "all_chosen", init_neg_logits=20.0)  # skips every block, if asked
    config = configured()
    for num_open, expected in ((3, [1] * 5 + [0] * 3), (8, [0] * 8), (None, [0] * 8)):
        gates = sampled_architecture(config, LearnedPolicy(policy, num_open), seed=88)
        assert gates == {"seg": expected, "sn": expected}


def test_without_a_policy_every_task_executes_every_block() -> None:
    policy = Policy(["seg", "sn"], 8, "all_chosen", init_neg_logits=20.0)
    gates = sampled_architecture(configured("policy=False"), LearnedPolicy(policy, 3), seed=88)
    assert gates == {"seg": [1] * 8, "sn": [1] * 8}


def test_the_curriculum_is_over_the_blocks_with_logits_or_off() -> None:
    policy = Policy(["seg"], 8, skip_layer=2)
    slow = curriculum(configured("curriculum_speed=3"), policy)
    assert (slow.num_blocks, slow.speed, slow.num_open(2), slow.num_open(3)) == (6, 3, 1, 2)
    assert curriculum(configured("is_curriculum=False"), policy).num_open(0) == 6
