"""FID, KID and LPIPS: metrics that need other networks, and libraries of the extra `metrics`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from training.evaluation.image_metrics import frechet_distance, kernel_distance
from training.evaluation.protocol import to_tensor
from training.models.backbones import load_tensors

Picture = np.ndarray  # uint8 (H, W, 3)
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"


def load_inception(weights: str) -> Callable[[Picture], np.ndarray]:
    """Load Inception v3 of the original FID, torch-fidelity's port from TensorFlow: picture -> 2,048 features.

    It resizes to 299 x 299 itself, bilinear without antialias, as the original does. Raises ImportError without
    torch-fidelity.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    net = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights
    )

    @torch.inference_mode()
    def compute_features(picture: Picture) -> np.ndarray:
        return np.asarray(net(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None])[0][0].cpu())

    return compute_features


def load_lpips() -> Callable[[Picture, Picture], float]:
    """Load LPIPS v0.1 on AlexNet from torchmetrics: two pictures -> distance. Raises ImportError and errors of a download."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    net = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)

    @torch.inference_mode()
    def compute_distance(a: Picture, b: Picture) -> float:
        return float(net(to_tensor(a), to_tensor(b)))

    return compute_distance


class Extras:
    """Computes FID, KID and LPIPS of every row of the table from the pictures added to it.

    `inception_weights`: a path; empty: no FID and KID. A metric whose library or download is missing is left out, and
    `missing` has the reason. Raises ValueError and FileNotFoundError for a file that does not hold Inception's weights.
    """

    def __init__(self, inception_weights: str, with_lpips: bool) -> None:
        no_inception = f"no --inception, the {INCEPTION} of torch-fidelity"
        self.missing: dict[str, str] = {"fid": no_inception, "kid": no_inception}
        self.missing["lpips"] = "not asked for (--lpips fetches AlexNet through torchvision)"
        self.compute_features: Callable[[Picture], np.ndarray] | None = None
        self.compute_distance: Callable[[Picture, Picture], float] | None = None
        if inception_weights:
            if "Conv2d_1a_3x3.conv.weight" not in load_tensors(inception_weights):
                raise ValueError(f"expected {INCEPTION} of torch-fidelity, got {inception_weights}")
            self.compute_features = self._load(
                lambda: load_inception(inception_weights), "fid", "kid"
            )
        if with_lpips:
            self.compute_distance = self._load(load_lpips, "lpips")
        self.features: dict[str, list[np.ndarray]] = {}
        self.distances: dict[str, list[float]] = {}

    def _load(self, load: Callable[[], Any], *names: str) -> Any:
        """Return the loaded network, or None and note why these metrics are missing."""
        try:
            network = load()
        except (ImportError, OSError, RuntimeError) as error:  # no library, no download
            reason = str(error).partition("\n")[0] or type(error).__name__
            self.missing |= dict.fromkeys(names, reason)
            return None
        for name in names:
            del self.missing[name]
        return network

    def add(self, pictures: dict[str, Picture]) -> None:
        """Add the pictures of one photo by row; "truth" is the original, "reference" is not a row."""
        for name, picture in pictures.items():
            if name != "reference" and self.compute_features is not None:
                self.features.setdefault(name, []).append(self.compute_features(picture))
            if name != "reference" and self.compute_distance is not None:
                distance = self.compute_distance(picture, pictures["truth"])
                self.distances.setdefault(name, []).append(distance)

    def rows(self) -> dict[str, dict[str, float]]:
        """Return the metrics of each row; FID and KID need at least two pictures."""
        found: dict[str, dict[str, float]] = {}
        for name, distances in self.distances.items():
            found.setdefault(name, {})["lpips"] = float(np.mean(distances))
        for name, features in self.features.items():
            pair = np.stack(self.features["truth"]), np.stack(features)
            if len(features) > 1:
                distance = {"fid": frechet_distance(*pair), "kid": kernel_distance(*pair)}
                found.setdefault(name, {}).update(distance)
        return found
