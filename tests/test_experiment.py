"""From a configuration to the parts of a run: the network, the architectures, what is refused."""

from functools import partial
from pathlib import Path

import pytest
import torch

from envs.experiment import (
    configured_network,
    configured_tasks,
    curriculum,
    exp_seeds,
    prepare_to_train,
    pretrained_state,
    sampled_architecture,
)
from envs.restoring import LearnedPolicy
from envs.retraining import RetrainingPlan, network_to_retrain
from models.multitask import MultiTaskNet
from models.policy import Policy
from models.resnet import LAYOUTS as IMAGE_BACKBONES
from models.resnet import ClassificationResNet, DilatedResNet
from models.text_cnn import LAYOUTS as TEXT_BACKBONES
from models.text_cnn import TextCNN
from utils.config import NUM_BLOCKS, TrainingConfig, load_config
from utils.errors import UserError

TWO_TASKS = Path(__file__).parents[1] / "yamls" / "adashare" / "nyu_v2_2task.yml"
DOMAINS = ("dataload.dataset=DomainNet", "tasks=[real, sketch]", "tasks_num_class=[7, 7]")
TEXTS = ("dataload.dataset=FDU_MTL", "tasks=[books, music]", "tasks_num_class=[2, 2]", "dataload.num_words=50")


def configured(*values: str) -> TrainingConfig:
    return load_config(TWO_TASKS, ["backbone_width=4", "head_width=4", *values])


def network(*values: str) -> MultiTaskNet:
    config = configured(*values)
    return configured_network(config, configured_tasks(config))


def test_every_backbone_that_can_be_configured_exists_and_the_other_way_round() -> None:
    assert NUM_BLOCKS.keys() == IMAGE_BACKBONES.keys() | TEXT_BACKBONES.keys()


@pytest.mark.parametrize(
    ("values", "device", "asked_for"),
    [
        ((), "cpu", []),
        (("train.checkpointing=True",), "cpu", ["return_freed_memory", "leave_out_triton"]),
        (("train.checkpointing=True",), "cuda", ["return_freed_memory"]),
    ],
)
def test_memory_is_given_back_where_it_is_to_be_saved(
    values: tuple[str, ...], device: str, asked_for: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("return_freed_memory", "leave_out_triton"):
        monkeypatch.setattr(f"envs.experiment.{name}", partial(calls.append, name))
    prepare_to_train(configured(*values).train, torch.device(device))
    assert calls == asked_for


@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_to_retrain_has_its_compiled_variants_to_itself(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", partial(resets.append, "reset"))
    monkeypatch.setattr("envs.experiment.compile_parts", lambda net: None)
    config = configured(f"train.compile={compiled}")
    plan = RetrainingPlan(configured_tasks(config), None, None, None, {}, {})
    for _ in range(2):
        network_to_retrain(config, plan)
    assert len(resets) == 2 * compiled


@pytest.mark.parametrize("backbone", NUM_BLOCKS)
def test_a_backbone_has_as_many_blocks_as_the_configuration_believes(backbone: str) -> None:
    net = network(f"backbone={backbone}", *(TEXTS if backbone in TEXT_BACKBONES else ()))
    assert net.num_blocks == NUM_BLOCKS[backbone]
    assert all(len(logits) == NUM_BLOCKS[backbone] for logits in net.policy.logits.values())


def test_the_network_has_the_tasks_in_the_configurations_order() -> None:
    config = configured("tasks=[sn, depth, seg]", "tasks_num_class=[3, 1, 13]", "lambdas=[1, 1, 1]", "skip_layer=2")
    net = configured_network(config, configured_tasks(config))
    assert list(net.heads) == list(net.policy.logits) == list(configured_tasks(config)) == ["sn", "depth", "seg"]
    assert [head.branches[0].conv3.out_channels for head in net.heads.values()] == [3, 1, 13]
    assert all(len(logits) == 6 for logits in net.policy.logits.values())


def test_images_that_have_an_instance_specific_policy_are_refused() -> None:
    with pytest.raises(UserError, match=r"^policy_model: instance-specific is not available in this version"):
        network("policy_model=instance-specific")


@pytest.mark.parametrize(
    ("values", "kind"),
    [((), DilatedResNet), (DOMAINS, ClassificationResNet), ((*TEXTS, "backbone=VDCNN9"), TextCNN)],
)
def test_the_data_set_decides_what_kind_of_network_it_is(values: tuple[str, ...], kind: type) -> None:
    assert type(network(*values).backbone) is kind


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (TEXTS, "backbone: ResNet18 does not fit FDU_MTL, which holds texts; choose one of VDCNN9"),
        (("backbone=VDCNN9",), "backbone: VDCNN9 does not fit NYU_v2, which holds images; choose one of ResNet18"),
    ],
)
def test_backbones_for_the_other_kind_of_input_are_refused(values: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        network(*values)


def test_every_domain_has_norms_of_its_own_if_asked_for() -> None:
    assert list(network(*DOMAINS, "task_bn=True").backbone.stem.bn.norms) == ["real", "sketch"]


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


def test_a_file_of_imagenets_weights_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save({"conv1.weight": torch.ones(2)}, path)
    assert pretrained_state(configured(*DOMAINS)) is None
    wide = ("backbone_width=64", "imagenet_pretrain=True", f"imagenet_weights={path}")
    assert pretrained_state(configured(*DOMAINS, *wide)).keys() == {"conv1.weight"}


def test_maps_and_classes_of_whole_images_do_not_mix() -> None:
    config = configured(*DOMAINS)
    tasks = configured_tasks(config) | configured_tasks(configured())
    with pytest.raises(UserError, match=r"some are maps and some classes"):
        configured_network(config, tasks)
