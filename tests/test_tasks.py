"""Task records, and the numbers that compare runs."""

import pytest
import torch

from envs.metrics import NormalsRelease
from envs.tasks import (
    LARGEST_GAIN,
    PROTOCOLS,
    build_tasks,
    check_classes,
    relative_performance,
    score,
)
from utils.errors import UserError


def two_tasks(normals="release"):
    return build_tasks("NYU_v2", ["seg", "sn"], [40, 3], normals)


def three_tasks(normals="release"):
    return build_tasks("NYU_v2", ["seg", "sn", "depth"], [40, 3, 1], normals)


def as_good_as_references(tasks):
    """Metrics of a run that equals the reference in every respect."""
    return {
        name: dict.fromkeys(task.metrics["release"]().names, 1.0) | dict(task.references)
        for name, task in tasks.items()
    }


class TestRecords:
    def test_order_and_channels_are_the_configurations(self):
        tasks = build_tasks("NYU_v2", ["depth", "seg"], [1, 13])
        assert [(name, task.name, task.num_channels) for name, task in tasks.items()] == [
            ("depth", "depth", 1),
            ("seg", "seg", 13),
        ]

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_records_speak_of_metrics_that_exist(self, protocol):
        for task in three_tasks("decoded").values():
            names = set(task.new_metric(protocol).names)
            assert {task.headline, *task.lower_is_better, *task.units, *task.references} <= names

    def test_raw_normals_have_no_standard_metrics_and_say_why(self):
        normals = three_tasks("release")["sn"]
        assert normals.new_metric("standard") is None
        assert "decoded" in normals.missing_protocols["standard"]
        assert isinstance(normals.new_metric("release"), NormalsRelease)

    def test_decoded_normals_have_both_protocols(self):
        normals = three_tasks("decoded")["sn"]
        assert all(normals.new_metric(protocol) is not None for protocol in PROTOCOLS)

    def test_references_follow_the_setting(self):
        assert two_tasks()["seg"].references["mIoU"] == 0.413
        assert three_tasks()["seg"].references["mIoU"] == 0.275
        assert build_tasks("NYU_v2", ["seg"], [40])["seg"].references["mIoU"] == 0.275

    @pytest.mark.parametrize(
        ("dataset", "names", "num_classes", "sentence"),
        [
            ("NYU_v3", ["seg"], [40], "'NYU_v3'.*NYU_v2"),
            ("NYU_v2", ["seg", "edges"], [40, 1], "'edges'.*seg, sn, depth"),
            ("NYU_v2", ["seg", "sn"], [40, 4], r"sn .*3 channel.*4 are given"),
            ("NYU_v2", ["depth"], [2], r"depth .*1 channel.*2 are given"),
        ],
    )
    def test_bad_choices_get_one_sentence(self, dataset, names, num_classes, sentence):
        with pytest.raises(UserError, match=sentence):
            build_tasks(dataset, names, num_classes)

    def test_loss_and_metric_read_the_same_batch(self):
        batch = {
            "depth": torch.full((1, 1, 8, 8), 2.0),
            "depth_valid": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        }
        task = three_tasks()["depth"]
        prediction = torch.full((1, 1, 1, 1), 2.5)
        metric = task.new_metric("standard")
        metric.update(prediction, batch)
        assert task.loss(prediction, batch).item() == pytest.approx(metric.compute()["abs_err"]) == 0.5


class TestCheckClasses:
    @pytest.mark.parametrize("bad_class", [-1, 40, 254])
    def test_a_class_that_the_head_lacks_is_named(self, bad_class):
        seg = torch.zeros(2, 4, 4, dtype=torch.int64)
        seg[1, 2, 3] = bad_class
        with pytest.raises(UserError, match=rf"second: .*class {bad_class}, .*0\.\.39"):
            check_classes(two_tasks(), {"seg": seg, "name": ["first", "second"]})

    def test_all_classes_and_the_ignored_one_pass(self):
        seg = torch.tensor([0, 39, 255, 7]).view(1, 2, 2)
        check_classes(two_tasks(), {"seg": seg, "name": ["only"]})


class TestScore:
    def test_single_task_quality_is_one_per_task(self):
        assert score(as_good_as_references(two_tasks()), two_tasks()) == pytest.approx(2)
        assert score(as_good_as_references(three_tasks()), three_tasks()) == pytest.approx(3)

    def test_by_hand(self):
        metrics = {
            "seg": {"mIoU": 0.1652, "Pixel Acc": 0.691, "err": 9.0},
            "sn": {
                "Angle Mean": 30.0,
                "Angle Median": 23.0,
                "Angle 11.25": 24.6,
                "Angle 22.5": 76.7,
                "Angle 30": 86.8,
            },
        }
        segmentation = (0.4 + 1) / 2
        normals = (0.5 + 0.5 + 0.5 + 1 + 1) / 5
        assert score(metrics, two_tasks()) == pytest.approx(segmentation + normals)

    def test_a_value_that_does_not_exist_adds_nothing(self):
        metrics = as_good_as_references(three_tasks())
        metrics["depth"] = dict.fromkeys(metrics["depth"])
        metrics["seg"]["mIoU"] = None
        assert score(metrics, three_tasks()) == pytest.approx(0.5 + 1)

    def test_an_error_of_zero_stays_finite(self):
        metrics = as_good_as_references(three_tasks())
        metrics["depth"]["abs_err"] = 0.0
        assert score(metrics, three_tasks()) == pytest.approx(2 + (LARGEST_GAIN + 4) / 5)


class TestRelativePerformance:
    def test_by_hand(self):
        tasks = two_tasks()
        single = as_good_as_references(tasks)
        multi = as_good_as_references(tasks)
        multi["seg"]["mIoU"] *= 1.2
        multi["seg"]["err"] = 100.0
        multi["sn"]["Angle Mean"] *= 0.9
        multi["sn"]["Angle 30"] *= 0.8
        assert relative_performance(multi, single, tasks) == pytest.approx({"seg": 20 / 2, "sn": (10 - 20) / 5})

    def test_metrics_that_cannot_be_compared_are_left_out(self):
        tasks = two_tasks()
        single = as_good_as_references(tasks)
        multi = as_good_as_references(tasks)
        single["seg"]["Pixel Acc"] = 0.0
        multi["seg"]["mIoU"] *= 1.5
        multi["sn"] = dict.fromkeys(multi["sn"])
        assert relative_performance(multi, single, tasks) == {"seg": pytest.approx(50), "sn": None}
