"""What the functions of the package refuse, and in which words."""

from dataclasses import replace

import pytest
import torch

from scsnet import SCSNetConfig, encode_picture, encode_references, output_size, render
from scsnet.checkpoint.hub import parse
from scsnet.color import rgb_to_lab
from scsnet.device import choose_device, choose_dtype
from scsnet.hints import Hint, paint_hints, parse_hints

PLANE, RGB, NAN = torch.rand(1, 1, 8, 8), torch.rand(1, 3, 8, 8), float("nan")
BLACK = (0, 0, 0)
NO_PICTURES = [RGB[:, :2], (RGB * 255).byte(), RGB * 255, RGB * 2 - 1, RGB.masked_fill(RGB > 0.9, NAN)]  # fmt: skip
PICTURE = r".*(0\.\.1|\(1, 2, 8, 8\))"


def look(net, *points, level=0):
    return net.attention(net.encode(PLANE, net.encode_reference([RGB])), points, level)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: output_size(10, 20, scale=2, long_side=9), "expected one of"),
        (lambda _: output_size(10, 20, scale=NAN), "scale must be above 0"),
        (lambda _: output_size(10, 20, long_side=0), "long side must be above 0"),
        (lambda _: output_size(10, 20, megapixels=-1), "megapixels must be above 0"),
        (lambda _: output_size(10, 20, size=(0, 5)), "at least 1 x 1"),
        (lambda _: output_size(10, 20, scale=1e30), "too large"),
        *((lambda net, x=x: encode_picture(net, x), "a picture" + PICTURE) for x in NO_PICTURES),
        *((lambda net, x=x: encode_references(net, [x]), "a reference" + PICTURE) for x in NO_PICTURES),
        (lambda net: encode_references(net, [RGB], masks=[PLANE * 0]), "marks at least one pixel"),
        (lambda net: encode_references(net, [RGB], masks=[PLANE[..., :4]]), r"expected a mask \(B, 1, 8, 8\)"),
        (lambda net: encode_references(net, [RGB], masks=[None, None]), "expected 1 masks, one each, got 2"),
        (lambda net: render(net, net.encode(PLANE), (8, 8), strength=NAN), "strength"),
        (lambda net: render(net, net.encode(PLANE), (8, 8), luminance="output"), "luminance must be"),
        (lambda net: render(net, net.encode(PLANE), (8, 8), luminance=RGB), "expected luminance"),
        (lambda net: render(net, net.encode(PLANE), (8, 8), out=RGB[:, :, 1:]), "expected out of shape"),
        (lambda net: net.encode(RGB), r"\(B, 1, H, W\), got shape \(1, 3, 8"),
        (lambda net: net.encode(PLANE, working_size=2), "working size"),
        (lambda net: net.encode_reference([]), "at least one reference"),
        (lambda net: net.encode_reference([PLANE]), r"reference \(B, 3, H, W\)"),
        (lambda net: net.encode_reference([torch.rand(b, 3, 8, 8) for b in (2, 3)]), "one batch"),
        (lambda net: net.encode(PLANE.expand(3, 1, 8, 8), net.encode_reference([RGB.expand(2, 3, 8, 8)])), "for 1 or 3 pictures, got 2"),
        (lambda net: net.decode(net.encode(PLANE), (0, 16)), "at least 1 x 1"),
        (lambda net: net.decode(net.encode(PLANE), (16, 16), (10, 10, 7, 2)), "window"),
        (lambda net: net.attention(net.encode(PLANE), [(0.5, 0.5)]), "got features without"),
        (lambda net: look(net, (1.5, 0.5)), r"0\.\.1.*\(1.5, 0.5\)"),
        (lambda net: look(net), "at least one point"),
        (lambda net: look(net, (0.5, 0.5), level=3), "level must be between 0 and 2, got 3"),
        *((lambda _, source=source: parse(source), r"expected hf:owner/repo.*safetensors") for source in (
            "hf:", "hf:owner", "hf:/repo", "hf:owner/repo/", "hf:owner/repo@", "hf://owner/repo", "hf:owner/repo/x.safetensors@..",
            "hf:owner/repo/x.bin", "hf:owner/repo@a b", "hf:owner/repo/../../x.safetensors", "hf:owner/repo/..\\x.safetensors")),
        (lambda _: choose_device("tpu"), "device must be one of"),
        (lambda _: choose_dtype(torch.device("cpu"), "int8"), "dtype must be one of"),
        *((lambda _, text=text: parse_hints(text), r"cannot read the hint .* for example")
          for text in ("0.5 0.5 #6b4a2b", "0.5, 0.5 brown", "0.5, 0.5 #6b4a2", "0.1, 0.1 #fff 1 2 3")),
        (lambda _: paint_hints(PLANE, [Hint(1.1, 0.5, BLACK)]), "x and y in 0..1, got 1.1, 0.5"),
        (lambda _: paint_hints(PLANE, [Hint(0.5, 0.5, BLACK, 0.0)]), "radius above 0"),
        (lambda _: paint_hints(PLANE, [Hint(0.5, 0.5, BLACK, 0.1, -1.0)]), "strength in 0..3"),
        (lambda _: paint_hints(PLANE, []), "at least one hint"),
        (lambda _: rgb_to_lab(torch.rand(1, 4, 5, 5)), r"expected planes .*got shape \(1, 4, 5, 5\)"),
        (lambda _: replace(SCSNetConfig(), width=10**9), "width must be between"),
        (lambda _: replace(SCSNetConfig(), width=6), "multiple of 4"),
        (lambda _: replace(SCSNetConfig(), width=64.0), "whole number"),
        (lambda _: replace(SCSNetConfig(), depth=True), "must be a number"),
        (lambda _: replace(SCSNetConfig(), norm="batch"), "norm must be one of"),
        (lambda _: replace(SCSNetConfig(), attention=["none"]), "attention must be one of"),
        (lambda _: replace(SCSNetConfig(), attention_scale=NAN), "attention_scale must be between"),
        (lambda _: replace(SCSNetConfig(), residual=1), "residual must be true or false"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(tiny_net, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_net)
