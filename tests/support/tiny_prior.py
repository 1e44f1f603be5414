"""A small architecture for the semantic prior; patch it over `scsnet.prior.EFFICIENTNET_LITE2`."""

from scsnet.prior import Architecture, BlockStage

TINY = Architecture(
    stem=4,
    stages=(
        BlockStage(4, 3, 1, 1, 1),
        BlockStage(5, 3, 1, 2, 2),
        BlockStage(6, 5, 2, 2, 2),
        BlockStage(7, 3, 1, 2, 2),
        BlockStage(8, 5, 1, 1, 2),
        BlockStage(9, 5, 1, 2, 2),
        BlockStage(10, 3, 1, 1, 2),
    ),
    top=16,
)
