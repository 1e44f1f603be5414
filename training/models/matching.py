"""Match the colours of a reference of another scene to a photo, by semantic similarity: targets for such references."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scsnet.prior import HIDDEN, SemanticGuidance

SHARPNESS = 4.0  # factor on the standardised similarities before the softmax


@torch.no_grad()
def match_colors(
    guidance: SemanticGuidance, luminance: Tensor, reference: Tensor, ab: Tensor
) -> Tensor:
    """Return the mean ab (B, 2, h, w) of the cells of a reference that are similar to each cell of a photo.

    luminance, reference: normalised L (B, 1, H, W); ab: the reference's, (B, 2, H, W). Weights are the softmax of the
    similarity: the cosine between the prior's hidden features, standardised over all pairs of cells of the two photos.
    """
    source, other = (guidance.describe(planes)[:, :HIDDEN] for planes in (luminance, reference))
    with torch.autocast(luminance.device.type, enabled=False):
        keys = F.normalize(other.float().flatten(2), dim=1)  # (B, C, M)
        queries = F.normalize(source.float().flatten(2), dim=1).mT  # (B, N, C)
        similarity = queries @ keys
        mean = similarity.mean((1, 2), keepdim=True)
        deviation = similarity.std((1, 2), keepdim=True)
        weights = torch.softmax(SHARPNESS * (similarity - mean) / deviation, dim=2)
        cells = F.adaptive_avg_pool2d(ab.float(), (other.shape[2], other.shape[3])).flatten(2)
        return (cells @ weights.mT).unflatten(2, (source.shape[2], source.shape[3]))
