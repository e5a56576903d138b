"""Configuration files: the shipped ones, what is refused and how, overrides, round trips."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from utils.config import TestingConfig, TrainingConfig, load_config, write_config
from utils.errors import UserError

YAMLS = Path(__file__).parent.parent / "yamls"
TWO_TASKS = YAMLS / "adashare" / "nyu_v2_2task.yml"
SHIPPED = sorted(YAMLS.glob("**/*.yml"))


def schema_of(path: Path) -> type[TestingConfig]:
    return TestingConfig if path.stem.endswith("_test") else TrainingConfig


def changed(path: Path, tmp_path: Path, old: str, new: str) -> Path:
    """A copy of `path` in which the one occurrence of `old` is `new`."""
    text = path.read_text()
    assert text.count(old) == 1
    copy = tmp_path / "changed.yml"
    copy.write_text(text.replace(old, new))
    return copy


def problems_of(overrides: list[str], path: Path = TWO_TASKS, **options) -> list[str]:
    """The lines after the header of the error that loading raises."""
    with pytest.raises(UserError) as caught:
        load_config(path, overrides, **options)
    header, *lines = str(caught.value).split("\n  ")
    assert header.startswith(f"{path}: {len(lines)} problem")
    return lines


# The shipped files


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(YAMLS)))
def test_every_shipped_file_loads_and_round_trips(path: Path, tmp_path: Path):
    config = load_config(path, schema=schema_of(path))
    write_config(config, tmp_path / "config.yml")
    assert load_config(tmp_path / "config.yml", schema=schema_of(path)) == config


# What is refused


def test_training_refuses_a_test_twin_and_names_what_is_missing():
    lines = problems_of([], YAMLS / "adashare" / "nyu_v2_2task_test.yml")
    assert "train.batch_size: expected a whole number, found nothing, the key is missing" in lines
    assert "train.lr: expected a number, found nothing, the key is missing" in lines
    assert len(lines) == 10


def test_testing_reads_training_files_and_checks_their_keys():
    assert load_config(TWO_TASKS, schema=TestingConfig).train.total_iters == 20000
    assert problems_of(["train.total_iters=many", "train.lrr=1"], schema=TestingConfig) == [
        'train.total_iters: expected a whole number or null, found the text "many"',
        "train.lrr: expected a known key, found an unknown one, did you mean train.lr?",
    ]


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.is_sparse=true", "is_sparse, at the top level"),
        ("train.batchsize=8", "train.batch_size"),
        ("task=[seg]", "tasks"),
        ("crop_h=8", "crop_h, in the section dataload"),
        ("train.fix_bn=true", "fix_BN, at the top level"),
        ("test.whichiter=best", "test.which_iter"),
        ("tran.lr=1", "train"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(override: str, nearest: str):
    key = override.partition("=")[0]
    key = "tran" if key == "tran.lr" else key
    line = f"{key}: expected a known key, found an unknown one, did you mean {nearest}?"
    assert problems_of([override]) == [line]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.lr='0.1'", 'train.lr: expected a number, found the text "0.1"'),
        ("train.lr=0", "train.lr: expected a number above 0, found 0"),
        ("train.lr=.inf", "train.lr: expected a number that is finite, found Infinity"),
        ("train.lr=null", "train.lr: expected a number, found null"),
        ("train.reg_w=-1", "train.reg_w: expected a number of at least 0, found -1"),
        ("train.reg_w=true", "train.reg_w: expected a number, found true"),
        ("train.decay_lr_rate=2", "train.decay_lr_rate: expected a number of at most 1, found 2"),
        ("train.batch_size=true", "train.batch_size: expected a whole number, found true"),
        ("train.batch_size=2.0", "train.batch_size: expected a whole number, found 2.0"),
        (
            "train.eval_batches=0",
            "train.eval_batches: expected a whole number of at least 1 or null, found 0",
        ),
        ("train.resume=1", "train.resume: expected true or false, found 1"),
        (
            "train.init_method=even",
            "train.init_method: expected one of equal, random, all_chosen, found the text",
        ),
        ("train=5", "train: expected a section of keys, found 5"),
        ("paths.log_dir=''", "paths.log_dir: expected text that is not empty, found the text"),
        ("seed=[]", "seed: expected a list that is not empty, found []"),
        ("seed=88", "seed: expected a list, found 88"),
        ("seed=[1, -1]", "seed[1]: expected a whole number of at least 0, found -1"),
        ("seed=[4294967296]", "seed[0]: expected a whole number below 4294967296, found 4294967296"),
        (
            "exp_name=../other",
            "exp_name: expected a plain name without / or \\, it becomes part of a path, found",
        ),
        ("exp_name=..", "exp_name: expected a plain name without / or \\, it becomes part of a path, found"),
        ("exp_name=2024", "exp_name: expected text, found 2024"),
        ("tasks=[seg, seg]", "tasks: expected a list of names that differ, found"),
        ("tasks_num_class=[40, 0]", "tasks_num_class[1]: expected a whole number of at least 1, found 0"),
        ("lambdas=[1, -20]", "lambdas[1]: expected a number of at least 0, found -20"),
        (
            "backbone=VGG",
            "backbone: expected one of ResNet18, ResNet34, ResNet50, ResNet101, VDCNN9, VDCNN17, VDCNN29, found",
        ),
        ("dataload.num_workers=-1", "dataload.num_workers: expected a whole number of at least 0, found -1"),
        (
            "lambdas=[1]",
            "tasks, tasks_num_class, lambdas: expected lists of the same length, "
            "found 2 tasks, 2 numbers of classes and 1 lambdas",
        ),
        (
            "skip_layer=8",
            "skip_layer, backbone: expected skip_layer below the 8 blocks of ResNet18, found 8",
        ),
        (
            "train.warm_up_iters=20000",
            "train.warm_up_iters, train.total_iters, policy: expected warm_up_iters below total_iters, "
            "so that iterations are left for the policy, found 20000 and 20000",
        ),
        (
            "train.init_method=all_chosen",
            "train.init_method, init_neg_logits: expected a number for init_neg_logits, "
            "since init_method is all_chosen, found null",
        ),
        (
            "dataload.crop_h=null",
            "dataload.crop_h, dataload.crop_w: expected both or none of them, found null and 321",
        ),
        (
            "imagenet_weights=resnet18.pth",
            "imagenet_weights, imagenet_pretrain: expected imagenet_pretrain: True where a file of weights is named",
        ),
        (
            "dataload.small_res=True",
            "dataload.small_res, dataload.dataset: expected True for CityScapes alone, found it for NYU_v2",
        ),
        (
            "train.policy_decay_lr_rate=0.5",
            "train.policy_decay_lr_freq, train.policy_decay_lr_rate: expected both or none of them, found null and 0.5",
        ),
        ("train.lr", "--set train.lr: expected section.key=value or key=value, found"),
        ("=5", "--set =5: expected section.key=value or key=value, found"),
        ("train..lr=5", "--set train..lr=5: expected section.key=value or key=value, found"),
        ("seed.first=5", "seed.first: expected a key of a section, but seed has the value [88"),
        ("train.lr=[", 'train.lr: expected a YAML value, found the text "[" (in line 1: '),
    ],
)
def test_one_wrong_value_makes_one_line_with_key_expected_and_found(override: str, line: str):
    problems = problems_of([override])
    assert len(problems) == 1
    assert problems[0].startswith(line)


def test_all_problems_are_reported_at_once():
    overrides = ["train.lr=fast", "train.warm_up_iters=30000", "lambdas=[1]", "bakbone=ResNet18", "nonsense"]
    starts = [
        "--set nonsense",
        "train.lr",
        "bakbone",
        "tasks, tasks_num_class, lambdas",
        "train.warm_up_iters",
    ]
    problems = problems_of(overrides)
    assert len(problems) == len(starts)
    assert all(problem.startswith(start) for problem, start in zip(problems, starts, strict=True))


def test_what_is_in_order_passes_the_checks_of_several_keys():
    config = load_config(
        TWO_TASKS,
        [
            "skip_layer=7",
            "train.init_method=all_chosen",
            "init_neg_logits=-10",
            "train.policy_decay_lr_freq=100",
            "train.policy_decay_lr_rate=0.5",
        ],
    )
    assert (config.skip_layer, config.init_neg_logits) == (7, -10.0)
    assert load_config(TWO_TASKS, ["policy=false", "train.warm_up_iters=20000"]).train.warm_up_iters == 20000


def test_a_configuration_is_frozen():
    config = load_config(TWO_TASKS)
    with pytest.raises(ValidationError, match="frozen"):
        config.policy = False
    with pytest.raises(ValidationError, match="frozen"):
        config.train.lr = 1.0
    assert hash(config) == hash(load_config(TWO_TASKS))


# Overrides and derived values


def test_only_nyu_v2_leaves_a_choice_of_normals():
    (problem,) = problems_of(["dataload.dataset=Taskonomy", "dataload.normals=decoded"])
    assert problem.startswith("dataload.normals, dataload.dataset: expected decoded for NYU_v2 alone")


def test_float16_makes_no_steps_in_the_backward_pass():
    (problem,) = problems_of(["train.step_in_backward=True", "train.precision=fp16"])
    assert problem.startswith(
        "train.step_in_backward, train.precision: expected fp32 or bf16 for steps in the backward"
    )
    assert load_config(TWO_TASKS, ["train.step_in_backward=True", "train.precision=bf16"]).train.step_in_backward


def test_overrides_win_over_the_file_and_have_yamls_types():
    config = load_config(
        TWO_TASKS,
        ["train.batch_size=8", "seed=[1, 2]", "train.lr=1e-4", "policy=false", "dataload.dataroot=a=b"],
    )
    assert (config.train.batch_size, config.seed, config.train.lr) == (8, (1, 2), 0.0001)
    assert (config.policy, config.dataload.dataroot) == (False, "a=b")


def test_an_override_can_fill_a_section_that_the_file_leaves_out(tmp_path: Path):
    path = changed(TWO_TASKS, tmp_path, "test:\n  which_iter: best\n", "")
    assert load_config(path).test.which_iter == "best"
    assert load_config(path, ["test.which_iter=latest"]).test.which_iter == "latest"


def test_retraining_takes_as_many_iterations_as_the_search_unless_told():
    assert load_config(TWO_TASKS, ["train.total_iters=5000"]).train.retrain_iters == 5000
    assert load_config(TWO_TASKS, ["train.retrain_total_iters=30"]).train.retrain_iters == 30


def test_the_heads_own_keys_win_and_stand_in_for_missing_ones(tmp_path: Path):
    plain = load_config(TWO_TASKS).train
    assert (plain.heads_lr, plain.heads_decay_lr) == (0.001, (4000, 0.5))
    own = ["train.fc_lr=0.02", "train.decay_fc_lr_freq=2000", "train.decay_fc_lr_rate=0.3"]
    both = load_config(TWO_TASKS, own).train
    assert (both.lr, both.heads_lr, both.heads_decay_lr) == (0.001, 0.02, (2000, 0.3))
    without_lr = changed(TWO_TASKS, tmp_path, "  lr: 0.001  # heads\n", "")
    assert load_config(without_lr, own).train.lr == 0.02
    assert problems_of([], without_lr) == ["train.lr: expected a number, found nothing, the key is missing"]


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E3", 1e3), ("1.5e3", 1.5e3), (".5e-2", 5e-3), ("1", 1.0), ("+2.e1", 20.0)],
)
def test_numbers_with_an_exponent_are_numbers(tmp_path: Path, text: str, value: float):
    path = changed(TWO_TASKS, tmp_path, "backbone_lr: 0.001", f"backbone_lr: {text}")
    config = load_config(path)
    assert config.train.backbone_lr == value
    assert type(config.train.backbone_lr) is float


def test_a_date_is_text():
    assert load_config(TWO_TASKS, ["exp_name=2024-01-31"]).exp_name == "2024-01-31"


@pytest.mark.parametrize("name", ["1e-3", "2024-01-31", "true", "null", "日本"])
def test_text_that_looks_like_something_else_survives_the_round_trip(tmp_path: Path, name: str):
    config = load_config(TWO_TASKS, [f"exp_name='{name}'", "train.lr=1e-5"])
    write_config(config, tmp_path / "run" / "config.yml")
    again = load_config(tmp_path / "run" / "config.yml")
    assert again == config
    assert (again.exp_name, again.train.lr) == (name, 1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected `key: value` lines at the top level, found an empty file"),
        ("- 1\n- 2\n", "expected `key: value` lines at the top level, found a list"),
        ("a: 1\nb: [1,\n", "expected valid YAML, found in line 3: "),
        ("a: 1\nb: 2\na: 3\n", "found in line 3: the key 'a', a second time"),
        ("train:\n  lr: 1\n  lr: 2\n", "found in line 3: the key 'lr', a second time"),
        ("a: 1\n2: b\n", "found in line 2: the key 2, which is not text"),
        ("a: 1\n[2]: b\n", "found in line 2: the key [2], which is not text"),
        ("a: &x [1]\n", "found in line 1: an anchor or alias (& or *)"),
        ("a: 1\nb: *x\n", "found in line 2: an anchor or alias (& or *)"),
        ("a: !!python/object/apply:os.getcwd []\n", "found in line 1: the tag tag:yaml.org,2002:python"),
        ("a: !!int b\n", "found in line 1: the tag tag:yaml.org,2002:int"),
        ("a: " + "[" * 5000 + "]" * 5000, "found in line 1: more than 16 levels of nesting"),
        ("a: " + "9" * 5000, "expected valid YAML, found "),
        ("a: 1\n--- \nb: 2\n", "expected valid YAML, found in line 2: "),
        ("a: \x07", "expected valid YAML, found "),
        ("a: " + "x" * 1_000_000, "expected a configuration of at most 64 KB, found more"),
    ],
)
def test_files_that_are_no_plain_yaml_are_refused_in_one_line(tmp_path: Path, content: str, message: str):
    path = tmp_path / "bad.yml"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_file_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="expected a YAML file, found nothing"):
        load_config(tmp_path / "missing.yml")
    with pytest.raises(UserError, match="expected a YAML file, found a folder"):
        load_config(tmp_path)
    (tmp_path / "latin.yml").write_bytes(b"exp_name: caf\xe9\n")
    with pytest.raises(UserError, match="expected text in UTF-8, found other bytes at 13"):
        load_config(tmp_path / "latin.yml")
