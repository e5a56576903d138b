"""Networks, policies and gates back from files, our own or the release's, and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.restoring import (
    Facts,
    Retrained,
    common_vocabulary,
    load_architecture,
    load_learned_policy,
    load_network,
    load_release_gates,
    load_without_policy,
    read_retrained,
)
from models.multitask import MultiTaskNet
from models.release import release_names
from tests.small_runs import small_net
from utils.checkpoint import save_checkpoint, save_gates
from utils.errors import UserError

GATES = {"seg": [1, 0, 1, 1, 0, 1, 1, 0], "depth": [1, 0, 0, 1, 1, 1, 0, 1]}


def trained_net(**options: Any) -> MultiTaskNet:
    """A small network whose logits are not those of a new one."""
    torch.manual_seed(1)
    net = small_net(**options)
    for logits in net.policy.logits.values():
        torch.nn.init.normal_(logits)
    return net


def released(net: MultiTaskNet) -> dict[str, Tensor]:
    """The state of a network under the release's names."""
    return {name: net.state_dict()[key] for key, name in release_names(net).items()}


def state_without_policy(net: MultiTaskNet) -> dict[str, Tensor]:
    return {key: value for key, value in net.state_dict().items() if not key.startswith("policy.")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best_model.pth.tar"


# Networks


@pytest.mark.parametrize("state_of", [MultiTaskNet.state_dict, released])
def test_a_network_comes_back_under_either_names_with_the_rest_of_its_checkpoint(path: Path, state_of: Any) -> None:
    trained = trained_net()
    save_checkpoint(path, {"mtl-net": state_of(trained), "iter": 400, "temp": 2.5})
    net = small_net()
    assert load_network(net, path) == Facts(iter=400)
    torch.testing.assert_close(dict(net.state_dict()), dict(trained.state_dict()), rtol=0, atol=0)


def test_a_network_of_other_tasks_is_refused(path: Path) -> None:
    save_checkpoint(path, {"mtl-net": trained_net().state_dict()})
    with pytest.raises(UserError, match=r"best_model\.pth\.tar does not fit .*heads\.sn"):
        load_network(small_net(tasks=("seg", "sn")), path)


def test_a_learned_policy_knows_how_many_blocks_are_open(path: Path) -> None:
    trained, net = trained_net(), small_net()
    save_checkpoint(path, {"mtl-net": trained.state_dict(), "open_blocks": 3})
    learned = load_learned_policy(net, path)
    assert (learned.policy, learned.num_open) == (net.policy, 3)
    for task, logits in trained.policy.logits.items():
        assert torch.equal(learned.policy.logits[task], logits)
    save_checkpoint(path, {"mtl-net": released(trained)})
    assert load_learned_policy(net, path).num_open is None


@pytest.mark.parametrize("state_of", [MultiTaskNet.state_dict, released])
@pytest.mark.parametrize("skip_layer", [0, 2])
def test_weights_come_back_without_the_policy_however_many_logits_it_had(
    path: Path, state_of: Any, skip_layer: int
) -> None:
    trained, net = trained_net(), small_net(skip_layer=skip_layer)
    save_checkpoint(path, {"mtl-net": state_of(trained)})
    load_without_policy(net, path)
    torch.testing.assert_close(state_without_policy(net), state_without_policy(trained), rtol=0, atol=0)
    assert all(logits.tolist() == [[0.5, 0.5]] * (8 - skip_layer) for logits in net.policy.logits.values())


def test_weights_that_are_missing_are_named_even_without_the_policy(path: Path) -> None:
    state = trained_net().state_dict()
    del state["backbone.stem.conv.weight"]
    save_checkpoint(path, {"mtl-net": state})
    with pytest.raises(UserError, match=r"1 missing: backbone\.stem\.conv\.weight"):
        load_without_policy(small_net(), path)


# Gates


def save_release_gates(path: Path, gates: dict[str, list[int]]) -> None:
    """Write the gates as the release does: one-hot rows, tasks by number, in a pickle."""
    policies = {
        f"task{number}_policy": torch.tensor([[gate, 1 - gate] for gate in row])
        for number, row in enumerate(gates.values(), start=1)
    }
    path.write_bytes(pickle.dumps(policies))


@pytest.fixture
def gates_path(tmp_path: Path) -> Path:
    return tmp_path / "policyIterbest_rs0088.json"


@pytest.fixture
def net() -> MultiTaskNet:
    return small_net()


def test_gates_are_read_from_our_file_in_the_order_of_the_tasks(gates_path: Path, net: MultiTaskNet) -> None:
    save_gates(gates_path, {"depth": GATES["depth"], "seg": GATES["seg"]})
    gates = load_architecture(net, gates_path)
    assert gates == GATES
    assert list(gates) == ["seg", "depth"]


def test_gates_are_read_from_the_releases_pickle(gates_path: Path, net: MultiTaskNet) -> None:
    save_release_gates(gates_path.with_suffix(".pickle"), GATES)
    assert load_architecture(net, gates_path) == GATES


def test_gates_may_lie_in_both_files_as_long_as_they_agree(gates_path: Path, net: MultiTaskNet) -> None:
    save_gates(gates_path, GATES)
    save_release_gates(gates_path.with_suffix(".pickle"), GATES)
    assert load_architecture(net, gates_path) == GATES
    save_release_gates(gates_path.with_suffix(".pickle"), GATES | {"seg": [1] * 8})
    with pytest.raises(UserError, match=r"policyIterbest_rs0088\.json and policyIterbest_rs0088\.pickle differ"):
        load_architecture(net, gates_path)


def test_gates_that_were_never_sampled_are_named(gates_path: Path, net: MultiTaskNet) -> None:
    with pytest.raises(UserError, match=r"policyIterbest_rs0088\.json .*do not exist: run re-train\.py"):
        load_architecture(net, gates_path)


@pytest.mark.parametrize(
    "gates",
    [
        {"seg": GATES["seg"]},
        {**GATES, "sn": GATES["seg"]},
        {"seg": GATES["seg"], "sn": GATES["depth"]},
        {"seg": GATES["seg"], "depth": GATES["depth"][:7]},
        {"seg": GATES["seg"] * 2, "depth": GATES["depth"] * 2},
    ],
)
def test_gates_of_other_tasks_or_blocks_are_refused(
    gates_path: Path, net: MultiTaskNet, gates: dict[str, list[int]]
) -> None:
    save_gates(gates_path, gates)
    found = {task: len(row) for task, row in gates.items()}
    with pytest.raises(UserError) as error:
        load_architecture(net, gates_path)
    assert f"are for {found} (task: blocks)" in str(error.value)
    assert "the network has {'seg': 8, 'depth': 8}" in str(error.value)


def test_release_gates_of_other_blocks_are_refused_by_their_file(gates_path: Path, net: MultiTaskNet) -> None:
    pickled = gates_path.with_suffix(".pickle")
    save_release_gates(pickled, {task: row * 2 for task, row in GATES.items()})
    with pytest.raises(UserError, match=r"rs0088\.pickle are for .*16"):
        load_architecture(net, gates_path)


def test_release_gates_of_other_tasks_are_refused_in_a_sentence(gates_path: Path) -> None:
    save_release_gates(gates_path, GATES)
    with pytest.raises(UserError, match=r"rs0088\.json does not fit the configured tasks: .*task3_policy"):
        load_release_gates(gates_path, ["seg", "sn", "depth"])


def test_weights_do_not_run_under_gates_that_they_were_not_trained_with(path: Path) -> None:
    gates_path, net = path.with_name("gates.json"), small_net()
    save_gates(gates_path, GATES)
    # The release's checkpoints do not say.
    for known in ({"gates": GATES}, {"gates": dict(reversed(GATES.items()))}, {}):
        save_checkpoint(path, {"mtl-net": net.state_dict(), "iter": 7, **known})
        assert read_retrained(net, gates_path, path) == Retrained(GATES, path, iteration=7, vocabulary=None)
    save_checkpoint(path, {"mtl-net": net.state_dict(), "gates": {**GATES, "depth": [1] * 8}})
    with pytest.raises(UserError, match=r"best_model\.pth\.tar was trained under other gates"):
        read_retrained(net, gates_path, path)


# Vocabularies


def test_the_words_come_back_with_the_weights(path: Path) -> None:
    net = small_net()
    for vocabulary in (["good", "bad"], None):
        save_checkpoint(path, {"mtl-net": net.state_dict(), "vocabulary": vocabulary})
        expected = tuple(vocabulary) if vocabulary else None
        assert load_learned_policy(net, path).vocabulary == expected
        assert load_without_policy(net, path).vocabulary == expected


@pytest.mark.parametrize(
    "fact",
    [
        {"iter": "7\x1b[2J"},
        {"iter": torch.tensor([1, 2])},
        {"gates": {"seg": [torch.tensor([1, 0])] * 8}},
        {"gates": "all"},
        {"log_position": -5},
        {"log_position": True},
        {"class_names": {0: "photo"}},
        {"class_names": {"photo": {0: torch.zeros(1)}}},
    ],
    ids=str,
)
def test_what_a_checkpoint_says_of_itself_is_looked_at(path: Path, fact: dict[str, Any]) -> None:
    net = small_net()
    save_checkpoint(path, {"mtl-net": net.state_dict(), **fact})
    for load in (load_network, load_without_policy, load_learned_policy):
        with pytest.raises(UserError, match="holds something else") as error:
            load(net, path)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("open_blocks", ["3", -1, 9, [8], 2.0, True])
def test_a_number_of_open_blocks_that_cannot_be_is_refused(path: Path, open_blocks: object) -> None:
    net = small_net()
    save_checkpoint(path, {"mtl-net": net.state_dict(), "open_blocks": open_blocks})
    with pytest.raises(UserError, match=r"\(open_blocks\)|9 blocks follow the policy, of 8"):
        load_learned_policy(net, path)


@pytest.mark.parametrize("vocabulary", ["good", [1, 2], {"good": 1}])
def test_a_vocabulary_of_anything_but_words_is_refused(path: Path, vocabulary: object) -> None:
    net = small_net()
    save_checkpoint(path, {"mtl-net": net.state_dict(), "vocabulary": vocabulary})
    with pytest.raises(UserError, match=r"best_model\.pth\.tar holds something else .* \(vocabulary\)"):
        load_learned_policy(net, path)


def test_architectures_that_have_learned_different_words_are_not_tested_together() -> None:
    one, same, other = (
        Retrained(GATES, Path(name), None, words)
        for name, words in (("a", ("good",)), ("b", ("good",)), ("c", ("good", "bad")))
    )
    assert common_vocabulary([one, same]) == ("good",)
    with pytest.raises(UserError, match=r"checkpoints a and c have learned different words"):
        common_vocabulary([one, same, other])
