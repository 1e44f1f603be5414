"""Encoding and decoding with oneDNN's fused operators, and with PyTorch's own."""

import pytest
import torch

from scsnet import SCSNet, SCSNetConfig, onednn


@pytest.mark.skipif(not onednn.FORMATS, reason="this PyTorch or CPU lacks oneDNN's operators")
def test_results_are_those_of_pytorchs_operators(monkeypatch):
    torch.manual_seed(0)
    net = SCSNet(SCSNetConfig(width=16, depth=2)).eval().requires_grad_(False)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.1)
    luminance = torch.rand(1, 1, 12, 16) * 2 - 1
    assert onednn.usable(luminance, net.initial.weight)
    fused = net.decode(net.encode(luminance), (30, 41))
    monkeypatch.setattr(onednn, "FORMATS", frozenset())
    assert not onednn.usable(luminance, net.initial.weight)
    assert torch.allclose(net.decode(net.encode(luminance), (30, 41)), fused, atol=1e-4)
