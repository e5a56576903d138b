"""Which data set has which tasks: order and channels, references, protocols, choices that are refused."""

import pytest

from envs.metrics import NormalsRelease
from envs.task_sets import TASK_SETS, build_tasks
from envs.tasks import PROTOCOLS, Task
from utils.errors import UserError


def two_tasks(normals: str = "release") -> dict[str, Task]:
    return build_tasks("NYU_v2", ["seg", "sn"], [40, 3], normals)


def three_tasks(normals: str = "release") -> dict[str, Task]:
    return build_tasks("NYU_v2", ["seg", "sn", "depth"], [40, 3, 1], normals)


@pytest.mark.parametrize(
    ("dataset", "names", "num_classes"),
    [
        ("NYU_v2", ["depth", "seg"], [1, 13]),
        ("CityScapes", ["depth", "seg"], [1, 7]),
        ("Taskonomy", ["edge", "seg", "keypoint", "sn", "depth"], [1, 17, 1, 3, 1]),
        ("DomainNet", ["sketch", "art_painting"], [345, 7]),
        ("FDU_MTL", ["toys_games", "MR", "books"], [2, 2, 3]),
    ],
)
def test_order_and_channels_are_the_configurations(dataset: str, names: list[str], num_classes: list[int]) -> None:
    tasks = build_tasks(dataset, names, num_classes)
    assert list(tasks) == [task.name for task in tasks.values()] == names
    assert [task.num_channels for task in tasks.values()] == num_classes


@pytest.mark.parametrize(
    ("dataset", "names", "num_classes", "sentence"),
    [
        ("NYU_v3", ["seg"], [40], f"'NYU_v3'.*{', '.join(TASK_SETS)}"),
        ("NYU_v2", ["seg", "edges"], [40, 1], "'edges'.*seg, sn, depth"),
        ("NYU_v2", ["seg", "sn"], [40, 4], r"sn .*3 channel.*4 are given"),
        ("NYU_v2", ["depth"], [2], r"depth .*1 channel.*2 are given"),
        ("CityScapes", ["seg", "sn"], [19, 3], "'sn'.*seg, depth"),
        ("CityScapes", ["seg"], [20], "20 classes.*2, 7 or 19"),
        ("Taskonomy", ["seg"], [40], r"seg .*17 channel.*40 are given"),
        ("Taskonomy", ["edges"], [1], "'edges'.*seg, sn, depth, keypoint, edge"),
        ("DomainNet", ["real", "sketch"], [345, 1], r"sketch.*1 class.*at least 2"),
        ("FDU_MTL", ["name"], [2], "'name'.*rename"),
    ],
)
def test_bad_choices_get_one_sentence(dataset: str, names: list[str], num_classes: list[int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build_tasks(dataset, names, num_classes)


# What they are compared with


@pytest.mark.parametrize("name", ["img", "total", "sparsity", "sharing", "a.b", "type", "values", "keys"])
def test_a_domain_with_a_name_that_is_taken_is_refused(name: str) -> None:
    """Batches, losses and modules use these names themselves."""
    with pytest.raises(UserError, match=f"a domain cannot be called '{name}'"):
        build_tasks("FDU_MTL", ["books", name], [2, 2])


def test_nyu_v2_references_follow_the_setting() -> None:
    assert two_tasks()["seg"].references["mIoU"] == 0.413
    assert three_tasks()["seg"].references["mIoU"] == 0.275
    assert build_tasks("NYU_v2", ["seg"], [40])["seg"].references["mIoU"] == 0.275


@pytest.mark.parametrize(
    ("num_classes", "small_res", "miou", "accuracy"),
    [
        (19, False, 0.402, 0.747),
        (19, True, 0.402, 0.747),
        (7, False, 0.644, 0.778),
        (7, True, 0.519, 0.722),
        (2, False, 0.644, 0.778),
        (2, True, 0.519, 0.722),
    ],
)
def test_cityscapes_references_follow_classes_and_resolution(
    num_classes: int, small_res: bool, miou: float, accuracy: float
) -> None:
    tasks = build_tasks("CityScapes", ["seg", "depth"], [num_classes, 1], small_res=small_res)
    assert tasks["seg"].references == {"mIoU": miou, "Pixel Acc": accuracy}
    assert tasks["depth"].references == {
        "abs_err": 0.017,
        "rel_err": 0.33,
        "sigma_1.25": 70.3,
        "sigma_1.25^2": 86.3,
        "sigma_1.25^3": 93.3,
    }


def test_taskonomy_has_one_reference_per_task() -> None:
    tasks = build_tasks("Taskonomy", ["seg", "sn", "depth", "keypoint", "edge"], [17, 3, 1, 1, 1])
    assert {name: task.references for name, task in tasks.items()} == {
        "seg": {"err": 0.517},
        "sn": {"cosine_similarity": 0.716},
        "depth": {"abs_err": 0.021},
        "keypoint": {"err": 0.197},
        "edge": {"err": 0.212},
    }
    assert all({task.headline} == set(task.references) for task in tasks.values()), "room for one: the paper's"


# Units and protocols


def test_only_nyu_v2_measures_depth_in_metres() -> None:
    assert three_tasks()["depth"].units["abs_err"] == "m"
    for dataset in ("CityScapes", "Taskonomy"):
        assert set(build_tasks(dataset, ["depth"], [1])["depth"].units.values()) == {"%"}


def test_raw_normals_have_no_standard_metrics_and_say_why() -> None:
    normals = three_tasks("release")["sn"]
    assert normals.new_metric("standard") is None
    assert "decoded" in normals.missing_protocols["standard"]
    assert isinstance(normals.new_metric("release"), NormalsRelease)


@pytest.mark.parametrize("dataset", ["NYU_v2", "Taskonomy"])
def test_decoded_normals_have_both_protocols(dataset: str) -> None:
    normals = build_tasks(dataset, ["sn"], [3], "decoded")["sn"]
    assert all(normals.new_metric(protocol) is not None for protocol in PROTOCOLS)


def test_taskonomys_normals_are_always_decoded() -> None:
    assert not build_tasks("Taskonomy", ["sn"], [3], "release")["sn"].missing_protocols
