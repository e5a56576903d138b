"""Task records: what they hold, what their pictures show, which classes a head has."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from envs.task_sets import TASK_SETS, build_tasks
from envs.tasks import PROTOCOLS, Task, check_classes, known_classes
from tests.metric_inputs import random_batch, random_predictions
from utils.errors import UserError
from utils.pictures import RGB

FULL_SETS = {
    "NYU_v2": {"seg": 40, "sn": 3, "depth": 1},
    "CityScapes": {"seg": 19, "depth": 1},
    "Taskonomy": {"seg": 17, "sn": 3, "depth": 1, "keypoint": 1, "edge": 1},
    "DomainNet": {"real": 345, "sketch": 345},
    "FDU_MTL": {"books": 2, "toys_games": 2},
}
every_set = pytest.mark.parametrize("dataset", TASK_SETS)


def full_set(dataset: str) -> dict[str, Task]:
    """All records of a data set, normals decoded, so that every task has both protocols."""
    return build_tasks(dataset, list(FULL_SETS[dataset]), list(FULL_SETS[dataset].values()), normals="decoded")


class TestRecords:
    @every_set
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_they_speak_of_metrics_that_exist(self, dataset: str, protocol: str) -> None:
        for task in full_set(dataset).values():
            names = set(task.new_metric(protocol).names)
            assert task.references
            assert {task.headline, *task.lower_is_better, *task.units, *task.references} <= names

    @pytest.mark.parametrize("dataset", ["NYU_v2", "CityScapes", "Taskonomy"])
    def test_loss_metrics_and_constant_of_maps_read_the_same_batch(self, dataset: str) -> None:
        batch, predictions = random_batch(0), random_predictions(0)
        for name, task in full_set(dataset).items():
            assert task.per_pixel
            assert task.loss(predictions[name], batch).value.item() > 0
            for protocol in PROTOCOLS:
                metric = task.new_metric(protocol)
                metric.update(predictions[name], batch)
                assert None not in metric.compute().values()
            constant = task.constant(task.valid_values(batch), predictions[name].shape[1])
            assert constant.shape == predictions[name].shape[1:2]

    def test_loss_metric_and_constant_of_a_domain_read_the_same_batch(self) -> None:
        task = full_set("DomainNet")["sketch"]
        batch = {"sketch": torch.tensor([3, 3, 344]), "real": torch.tensor([0])}
        logits = torch.full((3, 345), -100.0)
        logits[:, 3] = 0
        metric = task.new_metric("standard")
        metric.update(logits, batch)
        assert metric.compute() == pytest.approx({"accuracy": 2 / 3, "err": task.loss(logits, batch).value.item()})
        assert task.constant(task.valid_values(batch), 345).argmax() == 3
        assert task.to_target(logits).tolist() == [3, 3, 3]
        assert not task.per_pixel
        assert task.picture is None


class TestPictures:
    @pytest.mark.parametrize("dataset", ["NYU_v2", "CityScapes", "Taskonomy"])
    def test_truth_and_prediction_have_one(self, dataset: str) -> None:
        batch, predictions = random_batch(1), random_predictions(1)
        for name, task in full_set(dataset).items():
            true = task.picture(batch[task.target][0].numpy())
            predicted = task.picture(task.to_target(predictions[name])[0].numpy())
            assert (true.dtype, true.shape) == (np.uint8, (24, 40, 3))
            assert (predicted.dtype, predicted.shape) == (np.uint8, (3, 5, 3))

    @pytest.mark.parametrize(
        ("dataset", "from_near_to_far"),
        [
            ("NYU_v2", [0.5, 1.0, 2.0, 5.0, 9.0]),  # metres
            ("CityScapes", [0.24, 0.15, 0.1, 0.05, 0.02]),  # inverse depth
            ("Taskonomy", [0.45, 0.55, 0.65, 0.75, 0.85]),  # logarithm
        ],
    )
    def test_near_is_bright_whatever_the_unit(self, dataset: str, from_near_to_far: list[float]) -> None:
        (row,) = full_set(dataset)["depth"].picture(np.array([[[*from_near_to_far, 0.0]]]))
        brightness = row.astype(int).sum(axis=1)
        assert (np.diff(brightness[:5]) < -20).all()
        assert row[5].tolist() == [0, 0, 0], "not measured"

    @pytest.mark.parametrize(
        ("picture", "beyond", "end"),
        [
            (full_set("CityScapes")["depth"].picture, 7.0, 0.25),
            (full_set("CityScapes")["depth"].picture, -1.0, 1e-9),
            (full_set("Taskonomy")["depth"].picture, 0.1, 0.4),
            (full_set("Taskonomy")["depth"].picture, 1.2, 0.9),
            (full_set("Taskonomy")["keypoint"].picture, 3.0, 1.0),
            (full_set("Taskonomy")["edge"].picture, -3.0, -1.0),
        ],
    )
    def test_values_beyond_the_range_have_the_colour_of_its_end(
        self, picture: Callable[[np.ndarray], RGB], beyond: float, end: float
    ) -> None:
        (row,) = picture(np.array([[[beyond, end]]]))
        assert row[0].tolist() == row[1].tolist()

    @pytest.mark.parametrize("name", ["keypoint", "edge"])
    def test_responses_are_grey_and_the_strongest_white(self, name: str) -> None:
        (row,) = full_set("Taskonomy")[name].picture(np.array([[[-1.0, 0.0, 1.0]]]))
        assert row.tolist() == [[0, 0, 0], [128, 128, 128], [255, 255, 255]]


class TestCheckClasses:
    @pytest.mark.parametrize("bad_class", [-1, 40, 254])
    def test_a_class_that_the_head_lacks_is_named(self, bad_class: int) -> None:
        seg = torch.zeros(2, 4, 4, dtype=torch.int64)
        seg[1, 2, 3] = bad_class
        batch = random_batch(2, num_images=2) | {"seg": seg, "name": ["first", "second"]}
        with pytest.raises(UserError, match=rf"second: class {bad_class} .*seg .*0\.\.39 \(and 255\)"):
            check_classes(known_classes(full_set("NYU_v2")), batch)

    def test_all_classes_and_the_ignored_one_pass(self) -> None:
        seg = torch.tensor([0, 39, 255, 7]).view(1, 2, 2)
        check_classes(known_classes(full_set("NYU_v2")), {"seg": seg, "name": ["only"]})

    @pytest.mark.parametrize(("bad_class", "domain"), [(2, "books"), (255, "toys_games"), (-1, "toys_games")])
    def test_in_a_domain_no_number_is_ignored(self, bad_class: int, domain: str) -> None:
        names = {"books": ["b1", "b2"], "toys_games": ["t1", "t2"]}
        batch = {"books": torch.tensor([0, 1]), "toys_games": torch.tensor([1, 0]), "name": names}
        check_classes(known_classes(full_set("FDU_MTL")), batch)
        batch[domain][1] = bad_class
        with pytest.raises(UserError, match=rf"^{domain[0]}2: class {bad_class} .*{domain} .*0\.\.1;"):
            check_classes(known_classes(full_set("FDU_MTL")), batch)

    def test_class_255_of_345_passes(self) -> None:
        check_classes(
            known_classes(full_set("DomainNet")), {"real": torch.tensor([255, 344]), "name": {"real": ["a", "b"]}}
        )

    def test_a_task_that_has_run_out_is_skipped(self) -> None:
        batch = {"toys_games": torch.tensor([1, 5]), "name": {"toys_games": ["t1", "t2"]}}
        with pytest.raises(UserError, match=r"^t2: class 5"):
            check_classes(known_classes(full_set("FDU_MTL")), batch)
