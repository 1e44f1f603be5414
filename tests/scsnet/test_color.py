"""sRGB <-> LAB against scikit-image, over the whole cube, and with gradients."""

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from scsnet.color import denormalize_lab, lab_to_rgb, normalize_lab, rgb_to_lab, rgb_to_lightness
from scsnet.config import SCSNetConfig


def test_whole_cube_agrees_with_scikit_image():
    """Every sRGB colour in steps of 1/32."""
    axis = torch.linspace(0, 1, 33)
    cube = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).reshape(1, 3, 33, -1)
    expected = rgb2lab(cube.double().numpy(), channel_axis=1)
    lab = rgb_to_lab(cube)
    assert np.abs(lab.numpy() - expected).max() < 1e-3
    assert torch.allclose(rgb_to_lightness(cube), lab[:, :1], atol=1e-3)
    gray = cube[:, :1]
    assert torch.allclose(
        rgb_to_lightness(gray), rgb_to_lab(gray.expand(-1, 3, -1, -1))[:, :1], atol=1e-2
    )
    back = lab_to_rgb(torch.tensor(expected)).numpy()
    assert np.abs(back - lab2rgb(expected, channel_axis=1)).max() < 1e-3
    assert (lab_to_rgb(lab) - cube).abs().max() < 1e-4


def test_colours_out_of_gamut_are_clipped_on_request():
    lab = torch.tensor([50.0, 120.0, -100.0]).reshape(1, 3, 1, 1)
    free = lab_to_rgb(lab)
    assert free.min() < 0 or free.max() > 1
    assert torch.equal(lab_to_rgb(lab, clip=True), free.clamp(0, 1))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.04045, 0.5])
def test_gradients_are_finite_even_at_black(value):
    rgb = torch.full((1, 3, 2, 2), value, requires_grad=True)
    lab = torch.zeros(1, 3, 2, 2, requires_grad=True)
    (rgb_to_lab(rgb).sum() + lab_to_rgb(lab).sum()).backward()
    assert torch.isfinite(rgb.grad).all()
    assert torch.isfinite(lab.grad).all()
    assert lab.grad.abs().max() > 0


def test_gradients_are_those_of_the_function():
    rgb = torch.rand(1, 3, 2, 2, dtype=torch.float64).clamp(0.1, 0.9).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, rgb)
    assert torch.autograd.gradcheck(lab_to_rgb, rgb_to_lab(rgb.detach()).requires_grad_())


def test_normalisation_follows_the_config_and_is_undone():
    lab = torch.tensor([100.0, 110.0, -55.0]).reshape(1, 3, 1, 1)
    assert normalize_lab(lab, SCSNetConfig()).flatten().tolist() == [1.0, 1.0, -0.5]
    other = SCSNetConfig(lightness_centre=0.0, lightness_scale=100.0, chroma_scale=55.0)
    planes = normalize_lab(lab, other)
    assert planes.flatten().tolist() == [1.0, 2.0, -1.0]
    assert torch.allclose(denormalize_lab(planes, other), lab)
