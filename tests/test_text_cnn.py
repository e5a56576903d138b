"""The network for texts: depth, lengths, and where padding does not count."""

import numpy as np
import pytest
import torch
from torch import nn

from models.text_cnn import LAYOUTS, PADDING, TextCNN


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_names_count_the_convolutions_of_stem_and_residual_branches(name: str) -> None:
    net = TextCNN(name, num_words=10, width=2)
    branches = [module for module in net.modules() if isinstance(module, nn.Conv1d) and module.kernel_size == (3,)]
    assert len(branches) == int(name.removeprefix("VDCNN"))
    assert len(net.blocks) == sum(net.stage_lengths)


def test_every_stage_but_the_first_halves_the_length_and_doubles_the_channels() -> None:
    net = TextCNN("VDCNN17", num_words=10, width=4).eval()
    x = net.stem(torch.randint(1, 10, (2, 30)))
    shapes = [tuple(x.shape[1:])]
    for block in net.blocks:
        skipped = block.skip(x)
        x = block.execute(x, skipped)
        assert skipped.shape == x.shape
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(4, 30), (4, 30), (4, 30), (8, 15), (8, 15), (16, 8), (16, 8), (32, 4), (32, 4)]
    assert net.out_channels == 32


def test_the_summary_is_the_mean_over_the_places_that_hold_words() -> None:
    net = TextCNN("VDCNN9", num_words=10, width=2)
    tokens = torch.zeros(4, 32, dtype=torch.long)
    # 5 words fill the first 2 of 8 places, 32 all, 1 the first; the last text has none.
    tokens[0, :5], tokens[1, :], tokens[2, 0] = 4, 7, 9
    features = np.random.RandomState(0).randn(4, 16, 8).astype(np.float32)
    found = net.summarise(torch.from_numpy(features), tokens)
    expected = np.stack([features[0, :, :2].mean(axis=1), features[1].mean(axis=1), features[2, :, 0], np.zeros(16)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_padding_has_no_embedding_and_learns_none() -> None:
    net = TextCNN("VDCNN9", num_words=10, width=2).train()
    embedding = net.stem.embedding.weight
    assert (embedding[PADDING] == 0).all()
    assert embedding[1:].std().item() == pytest.approx(0.02, rel=0.5)
    net.stem(torch.tensor([[3, 4, 5, PADDING]])).square().sum().backward()
    assert (embedding.grad[PADDING] == 0).all()
    assert embedding.grad[3].abs().sum() > 0


def test_embeddings_are_dropped_in_training_alone() -> None:
    net = TextCNN("VDCNN9", num_words=10, width=200)
    assert 0 < net.stem.dropout.p <= 0.3
    tokens, seen = torch.ones(1, 50, dtype=torch.long), []
    net.stem.conv.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    net.train().stem(tokens)
    net.eval().stem(tokens)
    assert [(x == 0).float().mean().item() for x in seen] == pytest.approx([net.stem.dropout.p, 0], abs=0.02)


def test_convolutions_before_a_norm_have_no_bias() -> None:
    net = TextCNN("VDCNN9", num_words=10, width=2)
    assert not any(module.bias is not None for module in net.modules() if isinstance(module, nn.Conv1d))
