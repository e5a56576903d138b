"""What loads as a configuration becomes the parts of a run, or one sentence says why it cannot."""

from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn

from envs.experiment import (
    configured_tasks,
    curriculum,
    exp_seeds,
    network_kind,
    regularisers,
    sampled_architecture,
)
from envs.restoring import LearnedPolicy
from envs.task_sets import build_tasks
from models.policy import Policy
from tests.properties.configurations import SHIPPED, SOUND_VALUES, nearly_sound_trees, with_value
from tests.properties.refusals import result_or_sentence
from utils.checkpoint import load_gates, save_gates
from utils.config import NUM_BLOCKS, TrainingConfig, load_config
from utils.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every example writes into."""
    return tmp_path_factory.mktemp("parts")


def loaded(folder: Path, tree: dict) -> TrainingConfig:
    """The configuration with these values; the example is given up where they do not fit together."""
    (folder / "config.yml").write_text(yaml.safe_dump(tree))
    config = result_or_sentence(lambda: load_config(folder / "config.yml"))
    assume(not isinstance(config, str))
    return config


def configured_policy(config: TrainingConfig) -> Policy:
    """The policy of the configured network, without the network."""
    return Policy(
        config.tasks,
        NUM_BLOCKS[config.backbone],
        config.train.init_method,
        config.init_neg_logits,
        config.skip_layer,
    )


@given(tree=nearly_sound_trees())
@settings(max_examples=60)
def test_tasks_and_the_kind_of_network_exist_or_one_sentence_says_why_not(folder: Path, tree: dict) -> None:
    config = loaded(folder, tree)
    tasks = result_or_sentence(lambda: configured_tasks(config))
    kind = tasks if isinstance(tasks, str) else result_or_sentence(lambda: network_kind(config, tasks))
    if kind not in ("dense", "classification", "text"):
        assert kind.isprintable()
        assert ": " in kind
        return
    assert tuple(tasks) == config.tasks
    assert tuple(task.num_channels for task in tasks.values()) == config.tasks_num_class


# All that shapes a policy or its losses, but for the tasks' names, which the test chooses itself.
POLICY_KEYS = [
    *("backbone", "policy", "is_sparse", "is_sharing", "is_curriculum", "curriculum_speed", "skip_layer"),
    *("diff_sparsity_weights", "sparsity_loss", "sharing_loss", "seed"),
]


@given(data=st.data(), period=st.integers(0, 10**9))
@settings(max_examples=60)
def test_a_policy_has_losses_and_architectures_in_every_period(folder: Path, data: st.DataObject, period: int) -> None:
    tree = SHIPPED["taskonomy_5task"]
    others = st.lists(st.sampled_from(POLICY_KEYS), unique=True, max_size=5)
    for key in ["train.init_method", "init_neg_logits", *data.draw(others)]:
        sound = st.integers(0, 13) if key == "skip_layer" else SOUND_VALUES[key]
        tree = with_value(tree, key, data.draw(sound))
    config = loaded(folder, tree)
    policy = configured_policy(config)
    num_open = curriculum(config, policy).num_open(period)
    assert 1 <= num_open <= policy.num_policy_blocks == NUM_BLOCKS[config.backbone] - config.skip_layer

    losses = regularisers(config, policy)(dict(policy.logits.items()), num_open)
    switched_on = {"sparsity": config.is_sparse, "sharing": config.is_sharing}
    assert set(losses) == {name for name, is_on in switched_on.items() if is_on}
    assert all(loss.isfinite() for loss in losses.values())
    assert losses.get("sharing", torch.zeros(())).item() >= 0

    closed = policy.num_blocks - num_open
    for seed in exp_seeds(config, None).values():
        gates = sampled_architecture(config, LearnedPolicy(policy, num_open), seed)
        assert tuple(gates) == config.tasks
        assert all(len(path) == policy.num_blocks for path in gates.values())
        assert all(path[:closed] == [1] * closed for path in gates.values())


@given(name=st.text() | SOUND_VALUES["exp_name"])
@settings(max_examples=80)
@example(name="a\u200bb")  # a space of no width: nothing that a file's name should have
def test_whatever_a_task_may_be_called_its_gates_come_back(folder: Path, name: str) -> None:
    tree = SHIPPED["domainnet"] | {"tasks": [name], "tasks_num_class": [2], "lambdas": [1]}
    gates = {task: [1, 0] for task in loaded(folder, tree).tasks}
    save_gates(folder / "gates.json", gates)
    assert load_gates(folder / "gates.json") == gates


@given(data=st.data(), exp_ids=st.none() | st.lists(st.integers(), min_size=1, max_size=4))
@settings(max_examples=30)
def test_every_exp_id_has_its_seed_or_is_refused(folder: Path, data: st.DataObject, exp_ids: list[int] | None) -> None:
    config = loaded(folder, with_value(SHIPPED["rooms"], "seed", data.draw(SOUND_VALUES["seed"])))
    if exp_ids is None:
        assert list(exp_seeds(config, None).items()) == list(enumerate(config.seed[:8]))
    elif all(0 <= exp_id < len(config.seed) for exp_id in exp_ids):
        assert exp_seeds(config, exp_ids) == {exp_id: config.seed[exp_id] for exp_id in exp_ids}
    else:
        with pytest.raises(UserError, match="--exp_ids"):
            exp_seeds(config, exp_ids)


NAMES_OF_MODULES = sorted({*dir(nn.ModuleDict()), *dir(nn.ParameterDict())})


@given(name=st.sampled_from(NAMES_OF_MODULES) | SOUND_VALUES["exp_name"])
@settings(max_examples=300)
@example(name="training")
@example(name="_modules")
@example(name="a.b")
def test_whatever_a_domain_is_called_it_has_a_head_and_logits_or_is_refused(name: str) -> None:
    tasks = result_or_sentence(lambda: build_tasks("DomainNet", [name], [2]))
    if isinstance(tasks, str):
        assert repr(name) in tasks
        return
    assert list(nn.ModuleDict({name: nn.Linear(1, 2)})) == [name]
    assert list(Policy([name], 2).sample_architecture(0)) == [name]
