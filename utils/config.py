"""One YAML file with the release's keys -> one validated, typed, frozen configuration.

`load_config` is the way in: it reads the file, lets `--set` win over it, checks every key by itself (the
section classes) and what keys say together (`CROSS_CHECKS`), and reports all that is wrong at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from utils.errors import UserError
from utils.files import write_text
from utils.problems import describe, is_section, shorten, show, show_key
from utils.strict_yaml import format_yaml, parse_yaml, read_yaml, yaml_problem

NUM_BLOCKS = {
    "ResNet18": 8,
    "ResNet34": 16,
    "ResNet50": 16,
    "ResNet101": 33,
    "VDCNN9": 4,
    "VDCNN17": 8,
    "VDCNN29": 14,
}

# ---------------------------------------------------------------------------------------------------------
# The values of keys
# ---------------------------------------------------------------------------------------------------------

MOST_COUNT = 10**9
"""No run has more of anything; a larger number is a slip, and would overflow far from where it was written."""

MOST_IN_A_LIST = 100
"""So that a configuration with all its defaults written out is still one that can be read."""

MOST_NAME_BYTES, MOST_PATH_CHARACTERS = 200, 1000
"""Of a file's name, so that endings fit too, and of a path; file systems end at 255 and PATH_MAX."""


def _list_to_tuple(value: Any) -> Any:
    # YAML has lists; a frozen configuration holds tuples.
    return tuple(value) if isinstance(value, list) else value


def _refuse_impossible_path(path: str) -> str:
    longest_name = max(len(name.encode("utf-8", "surrogatepass")) for name in path.split("/"))
    if "\0" in path or len(path) > MOST_PATH_CHARACTERS or longest_name > MOST_NAME_BYTES:
        raise PydanticCustomError(
            "expected", f"text that can be a path, without NUL and at most {MOST_NAME_BYTES} bytes to a name"
        )
    return path


def _refuse_path(name: str) -> str:
    is_plain = name.isprintable() and name == name.strip() and not any(mark in name for mark in "/\\")
    if not is_plain or name in ("", ".", ".."):
        raise PydanticCustomError("expected", "a plain name without / or \\, it becomes part of a path")
    return _refuse_impossible_path(name)


def _refuse_repetition(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("expected", "a list of names that differ")
    return names


Text = Annotated[str, Field(min_length=1), AfterValidator(_refuse_impossible_path)]
PlainName = Annotated[str, AfterValidator(_refuse_path)]
NotNegative = Annotated[int, Field(ge=0, le=MOST_COUNT)]
Count = Annotated[int, Field(ge=1, le=MOST_COUNT)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0)]
Logit = Annotated[float, Field(ge=-1e30, le=1e30)]  # finite as float32 too
Weight = Annotated[float, Field(ge=0)]
Factor = Annotated[float, Field(gt=0, le=1)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_list_to_tuple), Field(min_length=1, max_length=MOST_IN_A_LIST)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(_list_to_tuple), Field(min_length=1, max_length=MOST_IN_A_LIST)]
Weights = Annotated[tuple[Weight, ...], BeforeValidator(_list_to_tuple), Field(min_length=1, max_length=MOST_IN_A_LIST)]
TaskNames = Annotated[
    tuple[PlainName, ...],
    BeforeValidator(_list_to_tuple),
    Field(min_length=1, max_length=MOST_IN_A_LIST),
    AfterValidator(_refuse_repetition),
]

# ---------------------------------------------------------------------------------------------------------
# The sections
# ---------------------------------------------------------------------------------------------------------


class Section(BaseModel):
    """A group of keys: frozen, no unknown keys, no conversion of types (only int where float is due)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PartialTrainSection(Section):
    """`train:` as test.py reads it: of training's keys none is required, all are checked."""

    batch_size: Count | None = None  # images per step (DomainNet: of each domain)
    total_iters: Count | None = None  # warm-up and policy learning together
    warm_up_iters: NotNegative | None = None
    retrain_total_iters: Count | None = None  # null: total_iters
    lr: Positive | None = None  # the heads' learning rate
    backbone_lr: Positive | None = None
    fc_lr: Positive | None = None  # DomainNet's name for the heads' rate; wins over lr
    policy_lr: Positive = 0.01  # the logits' rate (the release: with all_chosen only, else 0.01)
    decay_lr_freq: Count | None = None  # StepLR of warm-up and retraining, in iterations
    decay_lr_rate: Factor | None = None
    decay_fc_lr_freq: Count | None = None  # DomainNet's names for the heads' decay; win over decay_lr_*
    decay_fc_lr_rate: Factor | None = None
    policy_decay_lr_freq: Count | None = None  # StepLR of the weights in policy learning; null: no decay
    policy_decay_lr_rate: Factor | None = None
    weight_iter_alternate: Count | None = None  # weight steps of a policy period; null: one pass over train1
    alpha_iter_alternate: Count | None = None  # policy steps of a policy period; null: one pass over train2
    reg_w: Weight | None = None  # weight of the sparsity loss
    reg_w_hamming: Weight | None = None  # weight of the sharing loss
    print_freq: Count = 100  # steps of a kind between two logged losses; a policy period's end logs the rest
    val_freq: Count | None = None  # iterations between two evaluations
    save_freq: Count = 500  # iterations between two `latest` checkpoints: at most so many are lost in a crash
    max_bad_steps: Count = 10  # steps in a row without a finite loss and gradient that end the run
    decay_temp_freq: Count = 100  # accepted for the release's sake: it decays once per policy period
    init_temp: Positive = 5.0  # Gumbel-Softmax temperature at the start
    decay_temp: Factor = 0.965
    resume: bool = False  # skip warm-up, start the policy from the which_iter checkpoint
    retrain_resume: bool = False
    policy_iter: PlainName = "best"  # checkpoint whose policy is sampled
    which_iter: PlainName = "warmup"  # checkpoint that resume starts from
    init_method: Literal["equal", "random", "all_chosen"] = "equal"  # initial logits
    hard_sampling: bool = False  # straight-through one-hot gates instead of soft ones
    eval_batches: Count | None = 11  # batches of an evaluation while training; null: the whole split
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the network; losses, metrics and weights stay fp32
    tf32: bool = False  # GPUs: let fp32 convolutions and products round their factors to 10 bits
    compile: bool = False  # compile blocks and heads with torch.compile
    checkpointing: bool = False  # compute activations again in the backward pass instead of keeping them
    step_in_backward: bool = False  # weights learn while gradients are computed, of which few are in memory then
    sync_bn: bool = True  # several processes: BatchNorm statistics of the whole batch, as one process has them


class TrainSection(PartialTrainSection):
    """`train:` as training needs it."""

    batch_size: Count
    total_iters: Count
    warm_up_iters: NotNegative
    lr: Positive
    backbone_lr: Positive
    decay_lr_freq: Count
    decay_lr_rate: Factor
    reg_w: Weight
    reg_w_hamming: Weight
    val_freq: Count

    @model_validator(mode="before")
    @classmethod
    def _heads_keys_stand_in(cls, given: Any) -> Any:
        """DomainNet's files may give the heads' rate and decay under their own names alone."""
        if not isinstance(given, Mapping):
            return given
        names = {"lr": "fc_lr", "decay_lr_freq": "decay_fc_lr_freq", "decay_lr_rate": "decay_fc_lr_rate"}
        missing = {name: own for name, own in names.items() if given.get(name) is None}
        return {**given, **{name: given[own] for name, own in missing.items() if given.get(own) is not None}}

    @property
    def heads_lr(self) -> float:
        """Learning rate of the heads."""
        return self.lr if self.fc_lr is None else self.fc_lr

    @property
    def heads_decay_lr(self) -> tuple[int, float]:
        """StepLR of the heads in warm-up and retraining: (iterations between two decays, factor)."""
        if self.decay_fc_lr_freq is None or self.decay_fc_lr_rate is None:
            return self.decay_lr_freq, self.decay_lr_rate
        return self.decay_fc_lr_freq, self.decay_fc_lr_rate

    @property
    def retrain_iters(self) -> int:
        """Iterations of one retraining: `retrain_total_iters`, or as many as the search."""
        return self.total_iters if self.retrain_total_iters is None else self.retrain_total_iters


class TestSection(Section):
    """`test:` which checkpoint is tested."""

    __test__ = False  # pytest would collect the class by its name

    which_iter: PlainName = "best"


class PathsSection(Section):
    """`paths:` folders of a run; `exp_name` is appended to each."""

    log_dir: Text = "runs/logs"
    result_dir: Text = "runs/results"
    checkpoint_dir: Text = "runs/checkpoints"


class DataloadSection(Section):
    """`dataload:` the data set and how its images become batches."""

    dataset: Text  # one of dataloaders.DATASETS
    dataroot: Text
    crop_h: Count | None = None  # pixels; required for images
    crop_w: Count | None = None
    max_tokens: Count = 256  # texts: length to which they are cut or filled
    num_words: Annotated[int, Field(ge=3, le=200_000)] = 20000  # texts: size of the vocabulary
    small_res: bool = False  # CityScapes at 128x256
    normals: Literal["release", "decoded"] = "release"  # NYU v2: raw 0..255 vectors, or unit normals
    augmentation: Literal["release", "geometric"] = "release"  # geometric: depth and normals follow scale and mirror
    validation: Literal["test", "held_out"] = "test"  # what chooses `best`; test is the release's protocol
    num_workers: NotNegative = 2
    cache: Text | None = None  # folder in which decoded samples are kept; null: decode them each time


class TestingConfig(Section):
    """What test.py needs: a training file serves, and so does its shorter `_test` twin."""

    __test__ = False

    exp_name: PlainName
    seed: Seeds  # one sampled architecture each
    backbone: Literal["ResNet18", "ResNet34", "ResNet50", "ResNet101", "VDCNN9", "VDCNN17", "VDCNN29"]
    backbone_width: Count = 64  # channels of the first stage
    head_width: Count = 1024  # hidden channels of an ASPP head
    tasks: TaskNames
    tasks_num_class: Counts
    lambdas: Weights  # weights of the tasks' losses
    policy_model: Literal["task-specific", "instance-specific", "blockwise"] = "task-specific"  # blockwise: the same
    policy: bool = True  # false: all blocks executed by all tasks
    init_neg_logits: Logit | None = None  # the skip logit of init_method all_chosen
    is_sparse: bool = True
    is_sharing: bool = True
    is_curriculum: bool = True
    curriculum_speed: Count  # policy periods until one more block follows the policy
    skip_layer: NotNegative = 0  # leading blocks that all tasks always execute
    fix_BN: bool = False
    diff_sparsity_weights: bool = True  # the regularisers weigh blocks by their depth
    retrain_from_pl: bool = False  # retrain from the policy phase's weights, not from new ones
    imagenet_pretrain: bool = False  # ResNets: begin with ImageNet's weights
    imagenet_weights: Text | None = None  # a file of torchvision's; null: torchvision's own download
    task_bn: bool = False  # BatchNorms of their own for every task
    sparsity_loss: Literal["release", "paper"] = "release"
    sharing_loss: Literal["release", "paper"] = "release"
    execution: Literal["shared", "task_by_task"] = "shared"  # task_by_task computes skipped blocks too (release)
    train: PartialTrainSection = PartialTrainSection()
    test: TestSection = TestSection()
    paths: PathsSection = PathsSection()
    dataload: DataloadSection


class TrainingConfig(TestingConfig):
    """What train.py and re-train.py need."""

    train: TrainSection


Config = TypeVar("Config", bound=TestingConfig)

# ---------------------------------------------------------------------------------------------------------
# What keys say together: each check gets the values of its keys and returns what is wrong, or None
# ---------------------------------------------------------------------------------------------------------


def _check_lengths(tasks: Sequence, tasks_num_class: Sequence, lambdas: Sequence) -> str | None:
    if len(tasks) == len(tasks_num_class) == len(lambdas):
        return None
    return (
        f"expected lists of the same length, found {len(tasks)} tasks, {len(tasks_num_class)} numbers of "
        f"classes and {len(lambdas)} lambdas"
    )


def _check_skip_layer(skip_layer: int, backbone: str) -> str | None:
    if skip_layer < NUM_BLOCKS[backbone]:
        return None
    return f"expected skip_layer below the {NUM_BLOCKS[backbone]} blocks of {backbone}, found {skip_layer}"


def _check_warm_up(warm_up_iters: int | None, total_iters: int | None, policy: bool) -> str | None:
    if not policy or warm_up_iters is None or total_iters is None or warm_up_iters < total_iters:
        return None
    return (
        "expected warm_up_iters below total_iters, so that iterations are left for the policy, "
        f"found {warm_up_iters} and {total_iters}"
    )


def _check_all_chosen(init_method: str, init_neg_logits: float | None) -> str | None:
    if init_method != "all_chosen" or init_neg_logits is not None:
        return None
    return "expected a number for init_neg_logits, since init_method is all_chosen, found null"


def _check_pair(frequency: int | None, rate: float | None) -> str | None:
    if (frequency is None) == (rate is None):
        return None
    return f"expected both or none of them, found {show(frequency)} and {show(rate)}"


def _check_step_in_backward(step_in_backward: bool, precision: str) -> str | None:
    if not step_in_backward or precision != "fp16":
        return None
    return "expected fp32 or bf16 for steps in the backward pass, since fp16 looks at all gradients first, found fp16"


def _check_pretrained(imagenet_pretrain: bool, backbone: str, backbone_width: int) -> str | None:
    if not imagenet_pretrain or (backbone.startswith("ResNet") and backbone_width == 64):
        return None
    return f"expected a ResNet of width 64 for ImageNet's weights, found {backbone} of width {backbone_width}"


def _check_weights_file(imagenet_weights: str | None, imagenet_pretrain: bool) -> str | None:
    if imagenet_weights is None or imagenet_pretrain:
        return None
    return (
        f"expected imagenet_pretrain: True where a file of weights is named, found {show(imagenet_weights)} and False"
    )


def _check_small_res(small_res: bool, dataset: str) -> str | None:
    if not small_res or dataset == "CityScapes":
        return None
    return f"expected True for CityScapes alone, found it for {dataset}"


def _check_normals(normals: str, dataset: str) -> str | None:
    if normals == "release" or dataset == "NYU_v2":
        return None
    return f"expected decoded for NYU_v2 alone, whose files leave a choice, found it for {dataset}"


CROSS_CHECKS = {
    ("tasks", "tasks_num_class", "lambdas"): _check_lengths,
    ("skip_layer", "backbone"): _check_skip_layer,
    ("train.warm_up_iters", "train.total_iters", "policy"): _check_warm_up,
    ("train.init_method", "init_neg_logits"): _check_all_chosen,
    ("dataload.crop_h", "dataload.crop_w"): _check_pair,
    ("train.step_in_backward", "train.precision"): _check_step_in_backward,
    ("imagenet_pretrain", "backbone", "backbone_width"): _check_pretrained,
    ("imagenet_weights", "imagenet_pretrain"): _check_weights_file,
    ("dataload.small_res", "dataload.dataset"): _check_small_res,
    ("dataload.normals", "dataload.dataset"): _check_normals,
    ("train.decay_fc_lr_freq", "train.decay_fc_lr_rate"): _check_pair,
    ("train.policy_decay_lr_freq", "train.policy_decay_lr_rate"): _check_pair,
}

# ---------------------------------------------------------------------------------------------------------
# Loading and writing
# ---------------------------------------------------------------------------------------------------------


MOST_PROBLEMS = 100
"""So many are shown of those that keys have by themselves; a damaged file can have a thousand."""


def load_config(path: str | Path, overrides: Sequence[str] = (), schema: type[Config] = TrainingConfig) -> Config:
    """Read a configuration file.

    Args:
        path: YAML file, at most 64 KB, without anchors, aliases and tags.
        overrides: texts `section.key=value` or `key=value`, values in YAML; they win over the file.
        schema: `TrainingConfig`, or `TestingConfig` for files of test.py.

    Raises:
        UserError: one sentence for a file that cannot be read; for wrong content a header that names the
            file and one line per problem (a hundred, if there are more): key, what was expected, what was found.
    """
    values = read_yaml(Path(path))
    problems = [problem for override in overrides if (problem := _apply(override, values))]
    config: Config | None = None
    errors: list[ErrorDetails] = []
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems += [describe(schema, error) for error in errors[:MOST_PROBLEMS]]
    wrong_keys = {".".join(step for step in error["loc"] if isinstance(step, str)) for error in errors}
    problems += _contradictions(_sound_values(schema, values, wrong_keys))
    if problems or config is None:
        count = len(problems) + len(errors[MOST_PROBLEMS:])
        noun = "problem" if count == 1 else "problems"
        rest = [f"and {count - len(problems)} more"] if count > len(problems) else []
        raise UserError("\n  ".join([f"{path}: {count} {noun} in the configuration", *problems, *rest]))
    return config


def write_config(config: TestingConfig, path: str | Path) -> None:
    """Write the resolved configuration as YAML that `load_config` reads back to an equal object."""
    write_text(path, format_yaml(config.model_dump(mode="json")))


def flat_settings(config: TestingConfig) -> dict[str, Any]:
    """Dotted key -> plain value."""
    dumped = config.model_dump(mode="json")
    sections = {key: value for key, value in dumped.items() if isinstance(value, dict)}
    nested = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return {**{key: value for key, value in dumped.items() if key not in sections}, **nested}


def _apply(override: str, values: dict[str, Any]) -> str | None:
    """Set one `section.key=value` in `values`; returns the problem where it cannot be done."""
    name, equals, text = override.partition("=")
    *sections, key = steps = name.strip().split(".")
    if not equals or not all(steps) or len(sections) > 1 or not name.isprintable():
        return f"--set {shorten(override)}: expected section.key=value or key=value, found {show(override)}"
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        return f"{show_key(steps)}: expected a YAML value, found {show(text)} ({yaml_problem(error)})"
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            return f"{show_key(steps)}: expected a key of a section, but {section} has the value {show(values)}"
    values[key] = value
    return None


def _sound_values(schema: type[Section], values: Mapping, wrong_keys: set[str], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, or its default, for each key that is right by itself."""
    sound = {}
    for name, field in schema.model_fields.items():
        key = prefix + name
        if key in wrong_keys:
            continue
        if is_section(field.annotation):
            sound |= _sound_values(field.annotation, values.get(name, {}), wrong_keys, f"{key}.")
        else:
            sound[key] = values.get(name, field.default)
    return sound


def _contradictions(sound: Mapping[str, Any]) -> Iterator[str]:
    for keys, check in CROSS_CHECKS.items():
        problem = check(*(sound[key] for key in keys)) if sound.keys() >= set(keys) else None
        if problem:
            yield f"{', '.join(keys)}: {problem}"
