"""The paper's configurations: every value that reference and release give, and the twins for test.py."""

from pathlib import Path

import pytest
import yaml

from utils.config import Section, TestingConfig, load_config

ADASHARE = Path(__file__).parent.parent / "yamls" / "adashare"
SIXTEEN_SEEDS = (88, 45, 50, 100, 44, 48, 2048, 2222, 23, 12, 94, 88, 1000, 42, 77, 666)

NETWORK = {
    "nyu_v2_2task": {
        "backbone": "ResNet18",
        "tasks": ("seg", "sn"),
        "tasks_num_class": (40, 3),
        "lambdas": (1, 20),
        "dataload.dataset": "NYU_v2",
        "dataload.crop_h": 321,
        "dataload.crop_w": 321,
        "curriculum_speed": 3,
    },
    "nyu_v2_3task": {
        "backbone": "ResNet34",
        "tasks": ("seg", "sn", "depth"),
        "tasks_num_class": (40, 3, 1),
        "lambdas": (1, 20, 3),
        "dataload.dataset": "NYU_v2",
        "dataload.crop_h": 321,
        "dataload.crop_w": 321,
        "curriculum_speed": 3,
    },
    "cityscapes_2task": {
        "backbone": "ResNet34",
        "tasks": ("seg", "depth"),
        "tasks_num_class": (19, 1),
        "lambdas": (1, 20),
        "dataload.dataset": "CityScapes",
        "dataload.crop_h": 224,
        "dataload.crop_w": 224,
        "dataload.small_res": False,
        "curriculum_speed": 3,
    },
    "taskonomy_5task": {
        "backbone": "ResNet34",
        "tasks": ("seg", "sn", "depth", "keypoint", "edge"),
        "tasks_num_class": (17, 3, 1, 1, 1),
        "lambdas": (1, 3, 2, 7, 7),
        "dataload.dataset": "Taskonomy",
        "dataload.crop_h": 224,
        "dataload.crop_w": 224,
        "curriculum_speed": 1,
    },
    "domainnet": {
        "backbone": "ResNet34",
        "tasks": ("real", "painting", "quickdraw", "clipart", "infograph", "sketch"),
        "tasks_num_class": (345,) * 6,
        "lambdas": (1,) * 6,
        "policy_model": "blockwise",
        "imagenet_pretrain": True,
        "task_bn": True,
        "dataload.dataset": "DomainNet",
        "dataload.crop_h": 224,
        "dataload.crop_w": 224,
        "curriculum_speed": 1,
    },
}
EVERY_NETWORK = {
    "policy_model": "task-specific",
    "policy": True,
    "init_neg_logits": None,
    "is_sparse": True,
    "is_sharing": True,
    "is_curriculum": True,
    "skip_layer": 0,
    "fix_BN": False,
    "diff_sparsity_weights": True,
    "retrain_from_pl": False,
    "imagenet_pretrain": False,
    "task_bn": False,
    "backbone_width": 64,
    "head_width": 1024,
    "sparsity_loss": "release",
    "sharing_loss": "release",
    "train.policy_iter": "best",
    "train.which_iter": "warmup",
    "train.init_method": "equal",
    "train.hard_sampling": False,
    "test.which_iter": "best",
    "dataload.normals": "release",
    "dataload.augmentation": "release",
    "dataload.validation": "test",
}

TRAINING = {
    "nyu_v2_2task": {
        "seed": (88, 45, 50, 100, 44, 48, 2048, 2222, 9999),
        "train.reg_w": 0.05,
    },
    "nyu_v2_3task": {},
    "cityscapes_2task": {
        "train.lr": 1e-4,
        "train.reg_w": 0.01,
        "train.reg_w_hamming": 0.1,
    },
    "taskonomy_5task": {
        "seed": SIXTEEN_SEEDS[:8],
        "train.total_iters": 100000,
        "train.warm_up_iters": 20000,
        "train.retrain_total_iters": 30000,
        "train.lr": 1e-4,
        "train.backbone_lr": 1e-4,
        "train.reg_w_hamming": 0.005,
        "train.decay_lr_freq": 12000,
        "train.decay_lr_rate": 0.3,
        "train.val_freq": 1000,
        "train.weight_iter_alternate": 400,
        "train.alpha_iter_alternate": 100,
    },
    "domainnet": {
        "train.batch_size": 32,
        "train.heads_lr": 1e-3,
        "train.backbone_lr": 1e-5,
        "train.reg_w": 0.01,
        "train.reg_w_hamming": 0.1,
        "train.heads_decay_lr": (2000, 0.3),
        "train.decay_lr_freq": 2000,
        "train.decay_lr_rate": 0.3,
        "train.weight_iter_alternate": 400,
        "train.alpha_iter_alternate": 100,
    },
}
EVERY_TRAINING = {
    "seed": SIXTEEN_SEEDS,
    "train.batch_size": 16,
    "train.total_iters": 20000,
    "train.warm_up_iters": 4000,
    "train.retrain_total_iters": None,
    "train.lr": 1e-3,
    "train.backbone_lr": 1e-3,
    "train.reg_w": 0.001,
    "train.reg_w_hamming": 0.05,
    "train.decay_lr_freq": 4000,
    "train.decay_lr_rate": 0.5,
    "train.val_freq": 400,
    "train.weight_iter_alternate": None,
    "train.alpha_iter_alternate": None,
    "train.policy_decay_lr_freq": None,
    "train.policy_lr": 0.01,
    "train.print_freq": 100,
    "train.decay_temp_freq": 100,
    "train.init_temp": 5,
    "train.decay_temp": 0.965,
    # The release's file for Taskonomy has True, with which the first command would miss a warm-up.
    "train.resume": False,
    "train.retrain_resume": False,
    "train.eval_batches": 11,
}


def values_at(config: Section, keys: dict) -> dict:
    """The values at dotted keys."""
    values = {}
    for key in keys:
        value = config
        for step in key.split("."):
            value = getattr(value, step)
        values[key] = value
    return values


def test_every_experiment_of_the_paper_is_there() -> None:
    assert {path.stem for path in ADASHARE.glob("*.yml")} == {
        f"{name}{twin}" for name in [*NETWORK, "fdu_mtl"] for twin in ("", "_test")
    }


@pytest.mark.parametrize("name", NETWORK)
def test_training_files_hold_the_papers_values(name: str) -> None:
    expected = EVERY_NETWORK | NETWORK[name] | EVERY_TRAINING | TRAINING[name]
    config = load_config(ADASHARE / f"{name}.yml")
    assert values_at(config, expected) == expected


@pytest.mark.parametrize("name", [*NETWORK, "fdu_mtl"])
def test_test_twins_describe_the_same_network_and_one_seed(name: str) -> None:
    twin, trained = (ADASHARE / f"{name}{ending}.yml" for ending in ("_test", ""))
    config = load_config(twin, schema=TestingConfig)
    keys = EVERY_NETWORK | NETWORK.get(name, {"backbone": "", "tasks": "", "tasks_num_class": "", "dataload": ""})
    assert values_at(config, keys) == values_at(load_config(trained), keys)
    assert (config.exp_name, config.seed) == (name, (88,))
    assert set(yaml.safe_load(twin.read_text())["train"]) == {
        "policy_iter",
        "which_iter",
        "init_method",
        "hard_sampling",
    }
