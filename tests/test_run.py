"""What the phases share: names of files, streams of batches, checkpoints with training state, reports."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from envs.data import BatchStream, Data, Preparation
from envs.evaluation import Evaluation
from envs.losses import Batch
from envs.optimisers import step_decay, warm_up_optimiser
from envs.run import Run, RunFiles, ScoredEvaluation, StepReports
from envs.tasks import build_tasks, score
from models.multitask import build_network
from models.shared_paths import all_blocks
from tests.test_nyu_v2 import make_root
from utils.checkpoint import load_checkpoint, load_weights
from utils.config import DataloadSection, PathsSection
from utils.errors import UserError
from utils.logger import RunLogger

CPU = torch.device("cpu")
TASKS = build_tasks("NYU_v2", ["seg", "depth"], [40, 1])
TEN_CLASSES = build_tasks("NYU_v2", ["seg"], [10])
GATES = all_blocks(TASKS, 8)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Five frames of 32x48 in a bare folder, which makes them train and test."""
    make_root(tmp_path / "data", list("abcde"), height=32, width=48)
    return Data(dataload(tmp_path / "data"), TASKS, 88, CPU, ["train", "train1"], ["val", "test"])


def dataload(root: Path) -> DataloadSection:
    return DataloadSection(dataset="NYU_v2", dataroot=str(root), crop_h=16, crop_w=24, num_workers=0)


@pytest.fixture
def make_run(tmp_path: Path, data: Data) -> Iterator[Callable[..., Run]]:
    """Makes runs of a small network, whose `train` section is made of the given settings."""
    files = RunFiles(tmp_path / "logs", tmp_path / "checkpoints", tmp_path / "results")
    with RunLogger(files.logs) as logger:

        def make(**settings: object) -> Run:
            return Run(
                net=small_net(),
                tasks=TASKS,
                loss_weights={"seg": 1.0, "depth": 3.0},
                settings=SimpleNamespace(**settings),
                data=data,
                validation=data.evaluation("val", 2, whole=False),
                files=files,
                logger=logger,
                fix_bn=False,
            )

        yield make


def small_net() -> torch.nn.Module:
    outputs = {"seg": 40, "depth": 1}
    return build_network(backbone="ResNet18", num_outputs=outputs, backbone_width=4, head_width=4)


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# Files


def test_files_have_the_releases_names() -> None:
    paths = PathsSection(log_dir="runs/logs", result_dir="runs/results", checkpoint_dir="/ckpt")
    files = RunFiles.of(paths, "nyu_v2_2task")
    assert files.logs == Path("runs/logs/nyu_v2_2task")
    assert files.results == Path("runs/results/nyu_v2_2task")
    assert files.checkpoint("warmup") == Path("/ckpt/nyu_v2_2task/warmup_model.pth.tar")
    label = files.retrain_label(0, "best", "best")
    assert files.checkpoint(label).name == "retrain000_policyIterbest_best_model.pth.tar"
    assert files.retrain_label(15, "latest", "best") == "retrain015_policyIterlatest_best"
    assert files.gates("best", 88).name == "policyIterbest_rs0088.json"
    assert files.gates("best", 2222) == Path("/ckpt/nyu_v2_2task/policyIterbest_rs2222.json")


# Batches


def test_training_batches_are_crops_that_never_end(data: Data) -> None:
    stream = data.training("train", batch_size=2)
    assert stream.batches_per_pass == 2
    batches = [next(stream) for _ in range(5)]
    assert {tuple(batch["img"].shape) for batch in batches} == {(2, 3, 16, 24)}
    assert batches[0].keys() == {"img", "seg", "depth", "depth_valid", "name"}
    first_pass, second_pass = batches[:2], batches[2:4]
    assert len({name for batch in first_pass for name in batch["name"]}) == 4
    assert [batch["name"] for batch in first_pass] != [batch["name"] for batch in second_pass]


def test_a_stream_started_later_continues_the_one_from_the_start(data: Data) -> None:
    from_start = data.training("train", batch_size=2)
    for _ in range(3):
        next(from_start)
    later = data.training("train", batch_size=2, start=3)
    for _ in range(3):
        expected, found = next(from_start), next(later)
        assert found["name"] == expected["name"]
        torch.testing.assert_close(found["img"], expected["img"], rtol=0, atol=0)


def test_splits_have_batches_of_their_own(data: Data) -> None:
    assert data.training("train1", batch_size=1).batches_per_pass == 4
    with pytest.raises(KeyError, match="train2"):  # not asked for when the data was opened
        data.training("train2", batch_size=1)


@pytest.mark.parametrize(("whole", "sizes"), [(True, [2, 2, 1]), (False, [2, 2])])
def test_evaluation_takes_frames_in_order_as_often_as_asked(data: Data, whole: bool, sizes: list[int]) -> None:
    batches = data.evaluation("test", batch_size=2, whole=whole)
    assert len(batches) == len(sizes)
    for _ in range(2):
        seen = list(batches)
        assert [len(batch["img"]) for batch in seen] == sizes
        assert [name for batch in seen for name in batch["name"]] == list("abcde")[: sum(sizes)]
        assert seen[0]["img"].shape[2:] == (32, 48)


def test_data_tells_its_size_and_what_it_noticed_once(data: Data) -> None:
    assert data.image_size("val") == (32, 48)
    assert data.seed == 88
    assert len(set(data.notes)) == len(data.notes)
    assert sum("serve as train and as test" in note for note in data.notes) == 1


def test_a_class_that_the_head_lacks_stops_with_its_frame(tmp_path: Path, data: Data) -> None:
    few_classes = Data(dataload(tmp_path / "data"), TEN_CLASSES, 88, CPU, ["train"], ["test"])
    with pytest.raises(UserError, match=r"classes 0\.\.9"):
        next(few_classes.training("train", batch_size=2))
    with pytest.raises(UserError, match=r"^a: .* classes 0\.\.9"):
        next(iter(few_classes.evaluation("test", batch_size=2, whole=True)))


def test_a_stream_opens_its_loader_with_the_first_batch_and_prepares_each() -> None:
    opened = []

    class Loader:
        def __iter__(self) -> Iterator[Batch]:
            opened.append(True)
            seg = torch.zeros(1, 2, 2, dtype=torch.int64)
            yield {"img": torch.ones(1, 3, 2, 2), "seg": seg, "name": ["right"]}
            yield {"img": torch.ones(1, 3, 2, 2), "seg": seg + 10, "name": ["wrong"]}

    stream = BatchStream(Loader(), 1, Preparation(TEN_CLASSES, CPU))
    assert not opened
    assert next(stream)["name"] == ["right"]
    with pytest.raises(UserError, match="wrong"):
        next(stream)
    assert opened == [True]


# Evaluations and checkpoints


def test_a_run_evaluates_scores_and_logs(make_run: Callable[..., Run]) -> None:
    run = make_run(eval_batches=1)
    scored = run.evaluate(GATES, 400)
    assert scored.iteration == 400
    assert scored.evaluation.num_samples == 2
    assert scored.score == score(scored.evaluation.metrics["release"], TASKS)
    (line,) = logged(run.files.logs)
    expected = {"kind": "evaluation", "iteration": 400, "score": scored.score, **scored.evaluation.flat()}
    assert line == expected
    assert f"score {scored.score:.4f}" in (run.files.logs / "log.txt").read_text()


def test_all_batches_are_evaluated_where_no_number_is_set(make_run: Callable[..., Run]) -> None:
    assert make_run(eval_batches=None).evaluate(GATES, 1).evaluation.num_samples == 4


def a_scored_evaluation() -> ScoredEvaluation:
    metrics = {"release": {"seg": {"mIoU": 0.25, "err": None}}, "standard": {"seg": None}}
    return ScoredEvaluation(Evaluation(metrics, num_samples=4, seconds_per_image=0.5), 1.75, 400)


def test_a_scored_evaluation_comes_back_from_its_dict() -> None:
    assert ScoredEvaluation.from_dict(asdict(a_scored_evaluation())) == a_scored_evaluation()


def test_a_checkpoint_brings_back_weights_training_state_and_random_numbers(make_run: Callable[..., Run]) -> None:
    run = make_run()
    optimiser = warm_up_optimiser(run.net, 0.1, 0.01)
    decay = step_decay(optimiser, (4, 0.5), (4, 0.5))
    sum(prediction.sum() for prediction in run.net(torch.ones(2, 3, 32, 48), GATES).values()).backward()
    optimiser.step()
    decay.step()
    torch.manual_seed(5)
    run.save("latest", 12, {"weights": optimiser}, {"weights": decay}, a_scored_evaluation(), temp=4.8, period=3)
    drawn_after_saving = torch.rand(3)

    path = run.files.checkpoint("latest")
    checkpoint = load_checkpoint(path)
    assert {key: checkpoint[key] for key in ("iter", "temp", "period")} == {"iter": 12, "temp": 4.8, "period": 3}
    assert ScoredEvaluation.from_dict(checkpoint["best"]) == a_scored_evaluation()
    torch.set_rng_state(checkpoint["random_states"]["torch"])
    assert torch.equal(torch.rand(3), drawn_after_saving)
    net = small_net()
    load_weights(net, checkpoint["mtl-net"], path)
    torch.testing.assert_close(dict(net.state_dict()), dict(run.net.state_dict()), rtol=0, atol=0)
    other = warm_up_optimiser(net, 0.1, 0.01)
    other.load_state_dict(checkpoint["optimisers"]["weights"])
    torch.testing.assert_close(other.state_dict()["state"], optimiser.state_dict()["state"], rtol=0, atol=0)
    assert checkpoint["decays"]["weights"]["last_epoch"] == 1


def test_a_checkpoint_before_the_first_evaluation_has_no_best(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.save("warmup", 3, {}, {}, best=None, temp=5.0)
    checkpoint = load_checkpoint(run.files.checkpoint("warmup"))
    assert (checkpoint["best"], checkpoint["iter"], checkpoint["temp"]) == (None, 3, 5.0)


def test_the_policy_file_has_a_probability_per_task_and_block(make_run: Callable[..., Run]) -> None:
    run = make_run()
    with torch.no_grad():
        run.net.policy.logits["depth"][7] = torch.tensor([3.0, 0.0])
    run.write_policy(400)
    policy = json.loads((run.files.results / "policy.json").read_text())
    assert (policy["checkpoint"], policy["iteration"]) == ("best", 400)
    assert policy["execution_probability"]["seg"] == [0.5] * 8
    expected = [0.5] * 7 + [1 / (1 + math.exp(-3))]
    assert policy["execution_probability"]["depth"] == pytest.approx(expected)
    assert (run.files.results / "policy.png").read_bytes().startswith(b"\x89PNG")


# Reports


def test_reports_are_means_raw_and_weighted_with_the_state(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    weights = {"seg": 1.0, "depth": 3.0, "sparsity": 0.5}
    with RunLogger(tmp_path) as logger:
        reports = StepReports(logger, "weights", every=2)
        for iteration, seg in enumerate((1.0, 3.0, 5.0, 6.0, 9.0), start=1):
            losses = {"seg": torch.tensor(seg), "depth": torch.tensor(2.0), "total": torch.tensor(seg + 6)}
            if iteration == 4:
                losses["sparsity"] = torch.tensor(0.5)
            reports.report(iteration, losses, weights, {"temperature": 5.0 - iteration})
    first, second = logged(tmp_path)
    assert first == {
        "kind": "weights",
        "iteration": 2,
        "loss/seg": 2.0,
        "loss/depth": 2.0,
        "loss/total": 8.0,
        "weighted/seg": 2.0,
        "weighted/depth": 6.0,
        "temperature": 3.0,
    }
    assert (second["iteration"], second["loss/seg"], second["temperature"]) == (4, 5.5, 1.0)
    assert (second["loss/sparsity"], second["weighted/sparsity"]) == (0.5, 0.25)
    assert capsys.readouterr().out.splitlines()[0] == "iteration 2: seg 2.0000  depth 2.0000  total 8.0000"
