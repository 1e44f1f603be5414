"""nodes/image_tensors.py: IMAGE <-> planes."""

import pytest
import torch


@pytest.fixture
def image_tensors(nodes):
    return nodes.image_tensors


@pytest.mark.parametrize(("channels", "rgb", "alpha"), [(1, 1, None), (3, 3, None), (4, 3, 1)])
def test_planes_are_views_with_the_colours_first(image_tensors, channels, rgb, alpha):
    image = torch.rand(2, 5, 7, channels)
    picture = image_tensors.to_planes(image, "image")
    assert picture.rgb.shape == (2, rgb, 5, 7)
    assert (picture.alpha is None) == (alpha is None)
    assert picture.count == 2
    assert picture.size == (5, 7)
    assert picture.rgb[1, 0, 3, 4] == image[1, 3, 4, 0]
    assert picture.rgb.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()
    if alpha:
        assert torch.equal(picture.alpha[:, 0], image[..., 3])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(1, 4, 4, 2), "photo.*channels.*\\(1, 4, 4, 2\\)"),
        (torch.rand(4, 4, 3), "photo.*shape"),
        (torch.rand(0, 4, 4, 3), "photo: the batch is empty"),
        (torch.rand(1, 0, 4, 3), "photo: the batch is empty"),
        ({"samples": torch.rand(1, 4, 4, 4)}, "photo: expected an IMAGE, got dict"),
        (None, "photo: expected an IMAGE, got NoneType"),
        (
            [torch.rand(1, 4, 4, 3), torch.rand(1, 5, 6, 3)],
            r"photo.*\[\(4, 4\), \(5, 6\)\].*ImageScale",
        ),
    ],
)
def test_wrong_images_are_named(image_tensors, image, message):
    with pytest.raises(ValueError, match=message):
        image_tensors.to_planes(image, "photo")


def test_numbers_the_network_cannot_take(image_tensors):
    planes = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.5, 1.5, 0.25]).view(
        1, 1, 1, 6
    )
    assert image_tensors.to_float(planes.half(), torch.device("cpu")).flatten().tolist() == [
        0,
        1,
        0,
        0,
        1,
        0.25,
    ]
