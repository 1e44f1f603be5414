"""SCSColorizeAuto and SCSColorizeReference: gray pictures -> SCS_LAB."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..scsnet import Features
from ..scsnet.attention import KeysValues
from ..scsnet.features import move_features
from ..scsnet.resample import compute_working_shape, resize_to_working_size
from ..scsnet.tiling import Window, crop
from . import host
from .batching import colorize
from .compat import make_schema
from .image_tensors import Picture, to_float, to_mask, to_planes
from .types import Attention, Model, SCSAttention, SCSLab, SCSNetModel, require_type

INDEPENDENT, FILM = "independent", "a film"
ALL, ONE_EACH = "all for every picture", "one per picture"
FIGURE_SIDE = 512  # thumbnails for the attention figures have at most this many pixels, squared

_MODEL = SCSNetModel.Input("model", tooltip="From Load SCSNet.")
_IMAGE = io.Image.Input(
    "image",
    tooltip="Gray or colour photos of any size (of colour photos only the luminance is used); a batch or the frames of a "
    "video. An alpha channel is kept.",
)


def _working_size() -> io.Input:
    return io.Int.Input(
        "working_size", default=0, min=0, max=1024, step=4, optional=True,
        tooltip="Colours are found on a copy of about this many pixels square; detail always comes from the whole "
        "photo. 0: the size the weights were trained at, the best for most photos. Larger sees smaller objects, "
        "but strays from what the network has learned, and takes longer.",
    )  # fmt: skip


def _strength() -> io.Input:
    return io.Float.Input(
        "strength", default=1.0, min=0.0, max=3.0, step=0.05, round=0.001, optional=True,
        tooltip="Factor on the colours: 0 is gray, 1 as predicted, above 1 more vivid. To try several, change the strength "
        "of SCS Continuous Upscale instead: it colorizes nothing again.",
    )  # fmt: skip


def _color_margins() -> io.Input:
    return io.Boolean.Input(
        "color_margins", default=False, optional=True,
        tooltip="Off: even margins of a scan (paper, black or white borders) are found and stay gray, and the colours "
        "inside do not depend on them. On: everything is coloured.",
    )  # fmt: skip


def _frames() -> io.Input:
    return io.Combo.Input(
        "frames", options=[INDEPENDENT, FILM], default=INDEPENDENT, optional=True,
        tooltip="A batch that is a film: the colours of a shot stay, and start anew at each cut. "
        "Independent: each picture by itself.",
    )  # fmt: skip


def _is_film(frames: str) -> bool:
    if frames not in (INDEPENDENT, FILM):
        raise ValueError(f"frames must be {INDEPENDENT!r} or {FILM!r}, got {frames!r}")
    return frames == FILM


def _lab_output() -> io.Output:
    return SCSLab.Output(
        "lab",
        display_name="lab",
        tooltip="For SCS Continuous Upscale, which renders it at any size.",
    )


def _image_output() -> io.Output:
    return io.Image.Output(
        "colorized", display_name="image", tooltip="The colour photo at its own size."
    )


class SCSColorizeAuto(io.ComfyNode):
    """Colorizes with colours of the network's own choice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; its help page is docs/SCSColorizeAuto.md."""
        return make_schema(
            node_id="SCSColorizeAuto",
            display_name="SCS Colorize (automatic)",
            category="SCSNet",
            description="Colorizes gray photos. The image keeps the photo's size and luminance; the lab output can be "
            "rendered at any size by SCS Continuous Upscale.",
            search_aliases=[
                "colorize",
                "colourize",
                "colorization",
                "black and white to color",
                "old photo",
                "restore",
            ],
            inputs=[_MODEL, _IMAGE, _working_size(), _strength(), _color_margins(), _frames()],
            advanced=["working_size", "color_margins", "frames"],
            outputs=[_lab_output(), _image_output()],
        )

    @classmethod
    def execute(
        cls, model: object, image: object, working_size: int = 0, strength: float = 1.0, color_margins: bool = False,
        frames: str = INDEPENDENT,
    ) -> io.NodeOutput:  # fmt: skip
        """Colorize a batch. Raises ValueError for wrong links, shapes and numbers, and the host's out-of-memory error."""
        lab, colored = colorize(
            require_type(model, Model, "model"), to_planes(image, "image"), None,
            one_per_picture=False, working_size=working_size or None, strength=strength, color_margins=color_margins,
            film=_is_film(frames), on_features=lambda _: None,
        )  # fmt: skip
        return io.NodeOutput(lab, colored)


class SCSColorizeReference(io.ComfyNode):
    """Colorizes with the colours of one or several reference photos."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; its help page is docs/SCSColorizeReference.md."""
        return make_schema(
            node_id="SCSColorizeReference",
            display_name="SCS Colorize (reference)",
            category="SCSNet",
            description="Colorizes gray photos with the colours of reference photos of similar things. Where the "
            "network looked can be seen with SCS Attention Map.",
            search_aliases=[
                "colorize by example",
                "reference colorization",
                "exemplar colorize",
                "color transfer",
                "colorize old photo",
                "black and white to color",
            ],
            inputs=[
                _MODEL,
                _IMAGE,
                io.Image.Input(
                    "reference",
                    tooltip="Colour photos of any size that show similar things. Several go in as a batch (ImageBatch).",
                ),
                io.Combo.Input(
                    "reference_batch",
                    options=[ALL, ONE_EACH],
                    default=ALL,
                    optional=True,
                    tooltip="A batch of references: every picture may choose among all of them, or picture 1 takes "
                    "reference 1, picture 2 reference 2, and so on.",
                ),
                _working_size(),
                _strength(),
                _color_margins(),
                io.Mask.Input(
                    "reference_mask",
                    optional=True,
                    tooltip="Only marked places of the reference give their colours: one mask for all references, or one "
                    "each. With the photo itself as the reference, a few strokes of colour are enough.",
                ),
                _frames(),
            ],
            advanced=["working_size", "color_margins", "frames"],
            outputs=[
                _lab_output(),
                _image_output(),
                SCSAttention.Output(
                    "attention", display_name="attention", tooltip="For SCS Attention Map."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model: object, image: object, reference: object, reference_batch: str = ALL, working_size: int = 0,
        strength: float = 1.0, color_margins: bool = False, reference_mask: object = None, frames: str = INDEPENDENT,
    ) -> io.NodeOutput:  # fmt: skip
        """Colorize a batch. Raises ValueError for wrong links, shapes and numbers, and the host's out-of-memory error."""
        network = require_type(model, Model, "model")
        picture, references = to_planes(image, "image"), to_planes(reference, "reference")
        if reference_batch not in (ALL, ONE_EACH):
            raise ValueError(
                f"reference_batch must be {ALL!r} or {ONE_EACH!r}, got {reference_batch!r}"
            )
        one_each = reference_batch == ONE_EACH
        if one_each and references.count != picture.count:
            raise ValueError(
                f"{ONE_EACH!r} needs as many references as pictures, got {references.count} references for {picture.count} "
                f"pictures. Change their number, or choose {ALL!r}."
            )
        mask = None
        if reference_mask is not None:
            mask = to_mask(reference_mask, references, "reference_mask")
        insides: list[Window | None] = []
        queries: list[Tensor] = []
        keys_values: list[tuple[KeysValues, ...]] = []

        def keep(features: Features) -> None:
            assert features.reference is not None
            queries.append(features.source.to(host.image_device()))
            insides.append(features.inside)
            if one_each or not keys_values:
                keys_values.append(
                    move_features(features.reference.keys_values, host.image_device())
                )

        lab, colored = colorize(
            network, picture, references, mask, one_per_picture=one_each, working_size=working_size or None,
            strength=strength, color_margins=color_margins, film=_is_film(frames), on_features=keep,
        )  # fmt: skip
        bound = working_size or network.config.working_size
        thumbnails = make_thumbnails(references)
        # the colour branch sees pictures without the margins that all of them share
        seen = Picture(crop(picture.rgb, insides[0], 2), None) if insides[0] else picture
        attention = Attention(
            network, tuple(queries), tuple(keys_values), compute_working_shape(*seen.size, bound), picture.size,
            insides[0], make_thumbnails(seen), (thumbnails,) if one_each else tuple(thumbnails.split(1)), compute_working_shape(*references.size, bound),
        )  # fmt: skip
        return io.NodeOutput(lab, colored, attention)


def make_thumbnails(picture: Picture) -> Tensor:
    """Shrink pictures to at most FIGURE_SIDE² pixels -> RGB (B, 3, h, w), for figures."""
    device = host.image_device()
    shape = compute_working_shape(*picture.size, FIGURE_SIDE)
    result = torch.empty((picture.count, 3, *shape), device=device)
    for b in range(picture.count):
        host.raise_if_interrupted()
        # The one plane of a gray picture is copied to all three.
        result[b : b + 1] = resize_to_working_size(
            to_float(picture.rgb[b : b + 1], device), FIGURE_SIDE
        )
    return result
