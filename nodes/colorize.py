"""SCSColorizeAuto and SCSColorizeReference: gray pictures -> SCS_LAB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from comfy_api.latest import io
from torch import Tensor

from ..scsnet import Features
from ..scsnet.sizes import fit, working_shape
from . import host
from .batches import colorize
from .layout import Picture, to_float, to_planes
from .schema import schema
from .types import Attention, Model, SCSAttention, SCSLab, SCSNetModel, checked

ALL, ONE_EACH = "all for every picture", "one per picture"
FIGURE_SIDE = 512  # pictures that travel with the attention have at most this many pixels, squared

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
        tooltip="Factor on the colours: 0 is gray, 1 as predicted, above 1 more vivid.",
    )  # fmt: skip


def _lab_output() -> io.Output:
    return SCSLab.Output(
        "lab", display_name="lab", tooltip="For Continuous Upscale: any size from here, at once."
    )


def _image_output() -> io.Output:
    return io.Image.Output(
        "colorized", display_name="image", tooltip="The colour photo at its own size."
    )


class SCSColorizeAuto(io.ComfyNode):
    """Colours of the network's own choice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See docs/SCSColorizeAuto.md."""
        return schema(
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
            inputs=[_MODEL, _IMAGE, _working_size(), _strength()],
            advanced=["working_size"],
            outputs=[_lab_output(), _image_output()],
        )

    @classmethod
    def execute(
        cls, model: object, image: object, working_size: int = 0, strength: float = 1.0
    ) -> io.NodeOutput:
        """Errors: ValueError for wrong wiring, shapes or numbers; the host's out-of-memory error."""
        lab, colored = colorize(
            checked(model, Model, "model"), to_planes(image, "image"), None,
            one_per_picture=False, working_size=working_size or None, strength=strength, seen=lambda _: None,
        )  # fmt: skip
        return io.NodeOutput(lab, colored)


class SCSColorizeReference(io.ComfyNode):
    """Colours of one or several reference photos."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See docs/SCSColorizeReference.md."""
        return schema(
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
            ],
            advanced=["working_size"],
            outputs=[
                _lab_output(),
                SCSAttention.Output(
                    "attention", display_name="attention", tooltip="For SCS Attention Map."
                ),
                _image_output(),
            ],
        )

    @classmethod
    def execute(
        cls, model: object, image: object, reference: object, reference_batch: str = ALL, working_size: int = 0,
        strength: float = 1.0,
    ) -> io.NodeOutput:  # fmt: skip
        """Errors: ValueError for wrong wiring, shapes or numbers; the host's out-of-memory error."""
        network = checked(model, Model, "model")
        picture, near = to_planes(image, "image"), to_planes(reference, "reference")
        if reference_batch not in (ALL, ONE_EACH):
            raise ValueError(
                f"reference_batch must be {ALL!r} or {ONE_EACH!r}, got {reference_batch!r}"
            )
        one_each = reference_batch == ONE_EACH
        if one_each and near.count != picture.count:
            raise ValueError(
                f"{ONE_EACH!r} needs as many references as pictures, got {near.count} references for {picture.count} "
                f"pictures. Change their number, or choose {ALL!r}."
            )
        kept: list[Features] = []
        lab, colored = colorize(
            network, picture, near, one_per_picture=one_each, working_size=working_size or None, strength=strength,
            seen=lambda features: kept.append(replace(features, texture=None, luminance=features.luminance[..., :1, :1].clone())),
        )  # fmt: skip
        return io.NodeOutput(
            lab, attention(network, kept, picture, near, one_each, working_size), colored
        )


def attention(
    model: Model,
    features: Sequence[Features],
    picture: Picture,
    reference: Picture,
    one_each: bool,
    working_size: int,
) -> Attention:
    """What the attention pictures need, in few bytes, at the place that suits its size."""
    device, _ = host.place(sum(chunk.nbytes for chunk in features))
    near = small(reference)
    references = (near,) if one_each else tuple(near.split(1))
    shape = working_shape(*reference.size, working_size or model.config.working_size)
    moved = tuple(chunk.to(device) for chunk in features)
    return Attention(model, moved, small(picture), references, shape)


def small(picture: Picture) -> Tensor:
    """The pictures (B, 3, h, w) as figures show them."""
    device = host.image_device()
    parts = [
        fit(to_float(rgb, device), FIGURE_SIDE).expand(-1, 3, -1, -1)
        for rgb in picture.rgb.split(1)
    ]
    return torch.cat(parts)
