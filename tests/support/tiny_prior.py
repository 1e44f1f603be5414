"""A small architecture for the semantic prior, to be patched over `scsnet.prior.EFFICIENTNET_LITE2`."""

from dataclasses import replace

from scsnet import SCSNet
from scsnet.prior import Architecture, BlockStage

TINY = Architecture(
    stem=4,
    stages=(
        BlockStage(4, 3, 1, 1, 1), BlockStage(5, 3, 1, 2, 2), BlockStage(6, 5, 2, 2, 2), BlockStage(7, 3, 1, 2, 2),
        BlockStage(8, 5, 1, 1, 2), BlockStage(9, 5, 1, 2, 2), BlockStage(10, 3, 1, 1, 2),
    ),
    top=16,
)  # fmt: skip


def add_prior(net):
    """A copy of a network with a prior of this architecture."""
    guided = SCSNet(replace(net.config, prior="efficientnet_lite2")).eval().requires_grad_(False)
    guided.load_state_dict(net.state_dict(), strict=False)
    guidance = guided.color_branch.guidance
    guidance.prior.palette.normal_(0, 30)
    for projection in (guidance.source, guidance.reference):
        projection.weight.normal_(0, 0.02)
    return guided
