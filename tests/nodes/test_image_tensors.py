"""nodes/image_tensors.py: IMAGE <-> planes."""

import pytest
import torch


def test_wrong_images_are_named(nodes):
    for image, message in (
        (torch.rand(1, 4, 4, 2), r"photo.*channels.*\(1, 4, 4, 2\)"),
        (torch.rand(4, 4, 3), "photo.*shape"),
        (torch.rand(0, 4, 4, 3), "photo: the batch is empty"),
        (None, "photo: expected an IMAGE, got NoneType"),
        ([torch.rand(1, n, 4, 3) for n in (4, 5)], r"photo.*\[\(4, 4\), \(5, 4\)\].*ImageScale"),
    ):
        with pytest.raises(ValueError, match=message):
            nodes.image_tensors.to_planes(image, "photo")


def test_numbers_that_the_network_cannot_take_are_replaced(nodes):
    numbers = [torch.nan, torch.inf, -torch.inf, -0.5, 1.5, 0.25]
    planes = torch.tensor(numbers).half().view(1, 1, 1, 6)
    got = nodes.image_tensors.to_float(planes, torch.device("cpu"))
    assert got.flatten().tolist() == [0, 1, 0, 0, 1, 0.25]
