"""Many small tensors as one vector, and back."""

import torch

from utils.vectors import as_vector, fill_from_vector


def test_tensors_come_back_from_their_vector() -> None:
    tensors = [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.arange(4.0).view(1, 2, 2).transpose(1, 2)]
    vector = as_vector(tensors)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 7, 0, 2, 1, 3]
    kept = [tensor.clone() for tensor in tensors]
    for tensor in tensors:
        tensor.zero_()
    assert vector.sum() != 0, "a copy"
    fill_from_vector(tensors, vector)
    for tensor, expected in zip(tensors, kept, strict=True):
        assert torch.equal(tensor, expected)


def test_no_tensors_make_an_empty_vector() -> None:
    fill_from_vector([], as_vector([]))
    assert len(as_vector([])) == 0
