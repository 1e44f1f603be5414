"""The estimates of nodes/memory_estimates.py against what is really alive at the worst moment."""

import torch
from meters import Peak

FLOOR = 40 * 2**20  # a block of CPM, which small pictures do not fill


def test_colorize_takes_about_what_is_estimated(nodes, scsnet):
    for size, working_size, prior in (
        ((96, 128), 128, "none"),
        ((600, 700), 64, "none"),
        ((96, 128), 128, "efficientnet_lite2"),
        ((300, 400), 64, "efficientnet_lite2"),
    ):
        config = scsnet.SCSNetConfig(width=16, depth=2, prior=prior)
        net = scsnet.SCSNet(config).eval().requires_grad_(False)
        model = nodes.types.Model(nodes.host.wrap_network(net), "test")
        image = torch.rand(1, *size, 3)
        estimate = nodes.memory_estimates.colorize_bytes(model, size, working_size, 1)
        with torch.inference_mode(), Peak() as used:
            lab = nodes.SCSColorizeAuto.execute(model, image, working_size=working_size).args[0]
        assert used.peak <= estimate <= 3 * used.peak + FLOOR
        estimate = nodes.memory_estimates.upscale_bytes(lab)
        with torch.inference_mode(), Peak() as used:
            nodes.SCSContinuousUpscale.execute(lab, scale=2.0)
        assert used.peak <= estimate <= 3 * used.peak + FLOOR
