"""Number formats on real photos with the bundled weights: bfloat16 keeps the colours that float32 gives."""

import numpy as np
import pytest
import torch
from PIL import Image

from scsnet import checkpoint, encode_picture, render

color = pytest.importorskip("skimage.color")


@pytest.mark.parametrize("reference", [False, True])
def test_bfloat16_differs_by_less_than_the_eye_sees(root, reference):
    def picture(name, side):
        image = Image.open(root / "samples" / name).convert("RGB").resize((side, side))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255

    gray, colours = picture("Colorado1941.png", 96), [picture("Alps.jpg", 64)]
    labs = []
    for dtype in (torch.float32, torch.bfloat16):
        net = checkpoint.load("bundled", dtype=dtype)
        features = encode_picture(net, gray, colours if reference else ())
        result = render(net, features, (250, 250))[0].permute(1, 2, 0)
        labs.append(color.rgb2lab(result.float().numpy()))
    difference = color.deltaE_ciede2000(*labs)
    assert 0 < difference.mean() < 1
