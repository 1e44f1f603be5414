"""SCSColorHints: colours at places of a photo -> a reference and its mask."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..scsnet.hints import PAINTED, paint_hints, parse_color, parse_hints
from ..scsnet.resample import resize_to_working_size
from .compat import make_schema
from .image_tensors import Picture, to_float, to_mask, to_planes

CPU = torch.device("cpu")


class SCSColorHints(io.ComfyNode):
    """Paints colours on the photo itself, as the reference of SCS Colorize (reference)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; its help page is docs/SCSColorHints.md."""
        return make_schema(
            node_id="SCSColorHints",
            display_name="SCS Color Hints",
            category="SCSNet",
            description="Says which colour goes where: colours at places of the photo, which SCS Colorize (reference) carries "
            "to what belongs to them. Connect both outputs there.",
            search_aliases=["color hints", "scribble colorize", "paint colors", "choose color", "recolor"],
            inputs=[
                io.Image.Input("image", tooltip="The photo to be colorized; of a batch the first one."),
                io.String.Input(
                    "hints", default="", multiline=True,
                    tooltip="One hint per line: 'x, y #rrggbb radius strength'. x and y are fractions of the width and "
                    "height; radius (0.02) is a fraction of the shorter side; radius and strength (1) may be left out. "
                    "Easier: choose a colour and click into the picture below; drag a hint to move it, right click "
                    "removes it.",
                ),
                io.String.Input(
                    "mask_color", default="#6b4a2b", optional=True,
                    tooltip="Colour of what the mask marks, as #rrggbb; used only with a mask.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="What has the mask color, for example from a SAM node."),
                io.Image.Input(
                    "references", optional=True,
                    tooltip="Other reference photos, whose colours may be used everywhere; they are resized to the photo's "
                    "size.",
                ),
            ],
            # The node shows the photo; see SCS Attention Map.
            is_output_node=True,
            outputs=[
                io.Image.Output(
                    "reference", display_name="reference", tooltip="The photo with its hints, and the other references."
                ),
                io.Mask.Output("reference_mask", display_name="reference mask", tooltip="What of them may be used."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image: object, hints: str = "", mask_color: str = "#6b4a2b", mask: object = None, references: object = None
    ) -> io.NodeOutput:  # fmt: skip
        """Paint the hints. Raises ValueError for invalid hints, colours and masks, and if there is no hint at all."""
        picture = to_planes(image, "image")
        photo = to_float(picture.rgb[:1], CPU)
        small = Picture(resize_to_working_size(photo, PAINTED).clamp(0, 1), None)
        parsed = parse_hints(hints)
        if mask is None and not parsed:
            raise ValueError(
                "hints: none given; choose a colour and click into the picture on the node, or connect a mask"
            )
        region = None if mask is None else to_mask(mask, small, "mask")
        color = parse_color(mask_color) if mask is not None else (0, 0, 0)
        painted, marked = paint_hints(small.rgb, parsed, region, color)
        if references is not None:
            others = to_float(to_planes(references, "references").rgb, CPU).expand(-1, 3, -1, -1)
            resized = torch.nn.functional.interpolate(
                others, small.size, mode="bilinear", antialias=True
            )
            painted = torch.cat([painted, resized.clamp(0, 1)])
            marked = torch.cat([marked, marked.new_ones(len(others), 1, *small.size)])
        preview = ui.PreviewImage(photo.expand(-1, 3, -1, -1).movedim(1, 3), cls=None).as_dict()
        return io.NodeOutput(
            painted.movedim(1, 3).contiguous(),
            marked[:, 0],
            ui={"scsnet_source": preview["images"]},
        )
