"""SCSColorizeAuto and SCSColorizeReference: gray pictures -> SCS_LAB."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..scsnet import Features
from ..scsnet.attention import Memory
from ..scsnet.features import list_tensors, move_features
from ..scsnet.resample import compute_working_shape, resize_to_working_size
from . import host
from .batching import colorize
from .compat import schema
from .image_tensors import Picture, to_float, to_planes
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
        tooltip="Factor on the colours: 0 is gray, 1 as predicted, above 1 more vivid. Colorizes again when it changes; the one on "
        "SCS Continuous Upscale does not.",
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
            # the photo's slot among the inputs: a bypassed node hands the photo on
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
        looks = Looks(picture.count, one_each)
        lab, colored = colorize(
            network, picture, near, one_per_picture=one_each, working_size=working_size or None, strength=strength, seen=looks.take
        )  # fmt: skip
        bound = working_size or network.config.working_size
        thumbnails, given = small(picture), small(near)
        attention = Attention(
            network, tuple(looks.queries), tuple(looks.memories), compute_working_shape(*picture.size, bound), thumbnails,
            (given,) if one_each else tuple(given.split(1)), compute_working_shape(*near.size, bound),
        )  # fmt: skip
        return io.NodeOutput(lab, colored, attention)


class Looks:
    """Gathers what the attention pictures need while `count` pictures are colorized, at the place that suits its size."""

    def __init__(self, count: int, one_each: bool) -> None:
        self.count, self.one_each = count, one_each
        self.queries: list[Tensor] = []
        self.memories: list[tuple[Memory, ...]] = []
        self.place = host.compute_device()

    def take(self, features: Features) -> None:
        """A chunk of the pictures."""
        assert features.reference is not None
        memories = features.reference.memories
        if not self.queries:  # the other chunks will be as large
            chunks = self.count / features.source.shape[0]
            remembered = sum(t.nbytes for t in list_tensors(memories))
            nbytes = features.source.nbytes * chunks + remembered * (chunks if self.one_each else 1)
            self.place, _ = host.place(nbytes)
        self.queries.append(features.source.to(self.place))
        if self.one_each or not self.memories:
            self.memories.append(move_features(memories, self.place))


def small(picture: Picture) -> Tensor:
    """The pictures (B, 3, h, w) as figures show them."""
    device = host.image_device()
    shape = compute_working_shape(*picture.size, FIGURE_SIDE)
    result = torch.empty((picture.count, 3, *shape), device=device)
    for b in range(picture.count):
        # One gray plane is copied into all three.
        result[b : b + 1] = resize_to_working_size(
            to_float(picture.rgb[b : b + 1], device), FIGURE_SIDE
        )
    return result
