"""Task records: what they hold, which choices are refused, which classes a head has."""

import pytest
import torch

from envs.metrics import NormalsRelease
from envs.tasks import PROTOCOLS, build_tasks, check_classes
from utils.errors import UserError


def two_tasks(normals="release"):
    return build_tasks("NYU_v2", ["seg", "sn"], [40, 3], normals)


def three_tasks(normals="release"):
    return build_tasks("NYU_v2", ["seg", "sn", "depth"], [40, 3, 1], normals)


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
