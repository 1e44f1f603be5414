"""Figures are checked by their pixels: where it glows, what is marked, that nothing is left out."""

import numpy as np
import pytest

from scsnet import attention_figures as figures
from scsnet.attention_figures import Heat

GRAY = np.full((40, 60, 1), 128, np.uint8)
COLOUR = np.full((90, 30, 3), 0.5, np.float32)


def luma(rgb):
    return np.asarray(rgb, dtype=float) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("name", ["viridis", "inferno"])
def test_color_maps_are_those_of_matplotlib(name):
    matplotlib = pytest.importorskip("matplotlib")
    values = np.array([-1.0, 0.25, 0.5, 0.75, 2.0])
    exact = 255 * matplotlib.colormaps[name](values)[:, :3]
    assert np.abs(figures.apply_color_map(values, name) - exact).max() <= 10


def test_heat_glows_where_the_weight_is_but_not_for_the_padding():
    values = np.zeros((4, 6))
    values[3, 0] = 1.0
    values[:, 5] = 1.0  # lies wholly in the padding
    glow = luma(figures.overlay_heat(GRAY, Heat(values, (1.0, 4 / 6)), 1.0))
    row, column = np.unravel_index(glow.argmax(), glow.shape)
    assert row > 0.7 * glow.shape[0]
    assert column < 0.3 * glow.shape[1]
    assert glow[:10, -10:].max() < 80  # elsewhere the picture, darkened


def test_points_are_marked_where_they_are():
    heats = [[[Heat(np.ones((2, 2)))]] * 2]
    figure = figures.draw_attention(GRAY, [GRAY], [(10, 20), (50, 20)], heats, [1]).astype(int)
    source = figure[35:, 10 : 10 + 320]
    red = (source[..., 0] > 200) & (source[..., 1] < 120)
    green = (source[..., 1] > 150) & (source[..., 0] < 100)
    assert np.nonzero(red)[1].mean() == pytest.approx(10.5 / 60 * 320, abs=6)
    assert np.nonzero(green)[1].mean() == pytest.approx(50.5 / 60 * 320, abs=6)


def test_closed_valves_are_drawn_dark_and_open_ones_bright():
    low, high = Heat(np.full((3, 3), 0.05)), Heat(np.full((3, 3), 0.95))
    figure = figures.draw_valves(COLOUR, [(low, high)], [2])
    column = luma(figure[:, -60])
    assert column[: len(column) // 2].min() < 60 < 180 < column[len(column) // 2 :][20:-40].max()
    both = figures.stack_figures([figure, figure[:, :100]])
    assert both.shape == (2 * figure.shape[0], figure.shape[1], 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_pictures_of_extreme_shapes_have_figures(shape):
    picture = np.zeros((*shape, 1), np.uint8)
    figure = figures.draw_attention(picture, [picture], [(0, 0)], [[[Heat(np.ones((1, 1)))]]], [4])
    assert figure.size
