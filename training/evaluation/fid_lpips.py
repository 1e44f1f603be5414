"""FID, KID and LPIPS: figures that need the weights of other networks.

Where those or their libraries are not at hand a figure is n/a, with the reason. Nothing is put in its place.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.evaluation.image_metrics import frechet_distance, kernel_distance

Picture = np.ndarray  # uint8 (H, W, 3)
UNUSABLE = (
    *(ImportError, OSError, RuntimeError, ValueError),
    *(LookupError, EOFError, TypeError, AttributeError, pickle.UnpicklingError),
)
"""What comes of a library that is missing, a download, a file that holds something else."""


def inception(weights: str) -> Callable[[Picture], np.ndarray]:
    """Inception v3 of the original FID (TF port of torch-fidelity): a picture -> 2,048 features.

    It resizes to 299 x 299 itself, bilinear without antialias, as the original does.
    Errors: ImportError without torch-fidelity, FileNotFoundError without the weights.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if not Path(weights).is_file():
        raise FileNotFoundError(f"there is no file {weights}")
    net = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights
    )

    def features(picture: Picture) -> np.ndarray:
        planes = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            found: np.ndarray = net(planes)[0][0].cpu().numpy()
        return found

    return features


def lpips() -> Callable[[Picture, Picture], float]:
    """LPIPS of torchmetrics on AlexNet, v0.1. Errors: ImportError; those of a download."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    net = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)

    def distance(a: Picture, b: Picture) -> float:
        planes = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() / 255 for p in (a, b)]
        with torch.inference_mode():
            return float(net(*planes))

    return distance


class Extras:
    """Collects pictures row by row, then gives the figures of each row."""

    def __init__(self, inception_weights: str, with_lpips: bool) -> None:
        self.missing: dict[str, str] = {}
        self.features: Callable[[Picture], np.ndarray] | None = None
        self.distance: Callable[[Picture, Picture], float] | None = None
        if not inception_weights:
            self.missing["fid"] = self.missing["kid"] = (
                "no --inception, the weights-inception-2015-12-05-6726825d.pth of torch-fidelity"
            )
        else:
            self.features = self._tried(lambda: inception(inception_weights), "fid", "kid")
        if not with_lpips:
            self.missing["lpips"] = "not asked for (--lpips fetches AlexNet through torchvision)"
        else:
            self.distance = self._tried(lpips, "lpips")
        self.seen: dict[str, list[np.ndarray]] = {}
        self.distances: dict[str, list[float]] = {}

    def _tried(self, make: Callable[[], Any], *names: str) -> Any:
        try:
            return make()
        except UNUSABLE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.missing |= dict.fromkeys(names, reason)
            return None

    def add(self, pictures: dict[str, Picture]) -> None:
        """All pictures made of one photo, the truth among them."""
        for name, picture in pictures.items():
            if name == "reference":
                continue
            if self.features is not None:
                self.seen.setdefault(name, []).append(self.features(picture))
            if self.distance is not None:
                self.distances.setdefault(name, []).append(
                    self.distance(picture, pictures["truth"])
                )

    def rows(self) -> dict[str, dict[str, float]]:
        """Row -> its figures."""
        found: dict[str, dict[str, float]] = {}
        for name, distances in self.distances.items():
            found.setdefault(name, {})["lpips"] = float(np.mean(distances))
        for name, features in self.seen.items():
            real, made = np.stack(self.seen["truth"]), np.stack(features)
            if len(made) > 1:
                row = found.setdefault(name, {})
                row["fid"], row["kid"] = frechet_distance(real, made), kernel_distance(real, made)
        return found
