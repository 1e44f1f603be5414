"""Prompts in API form, built node by node."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

TINY = "tiny.safetensors"  # weights of no use, but fast; conftest.py makes them
ALPS = "scsnet_alps.jpg"  # 360 x 288


class Prompt(dict):
    """{id: {class_type, inputs}}; `add` returns the new node's id."""

    def add(self, kind: str, **inputs: Any) -> str:
        """A node; inputs are values or (id, output number)."""
        name = str(len(self) + 1)
        self[name] = {
            "class_type": kind,
            "inputs": {k: list(v) if isinstance(v, tuple) else v for k, v in inputs.items()},
        }
        return name

    def load(self, checkpoint: str, **inputs: Any) -> tuple[str, int]:
        """LoadSCSNet."""
        return self.add(
            "LoadSCSNet", **{"checkpoint": checkpoint, "hub_id": "", "dtype": "auto", **inputs}
        ), 0

    def image(self, name: str) -> tuple[str, int]:
        """LoadImage."""
        return self.add("LoadImage", image=name), 0

    def scaled(
        self,
        image: tuple[str, int],
        width: int,
        height: int,
        method: str = "area",
        crop: str = "center",
    ) -> tuple[str, int]:
        """ImageScale."""
        values = {"upscale_method": method, "width": width, "height": height, "crop": crop}
        return self.add("ImageScale", image=image, **values), 0

    def auto(self, model: tuple[str, int], image: tuple[str, int], **inputs: Any) -> str:
        """SCSColorizeAuto."""
        return self.add(
            "SCSColorizeAuto",
            model=model,
            image=image,
            **{"working_size": 0, "strength": 1.0, **inputs},
        )

    def reference(
        self,
        model: tuple[str, int],
        image: tuple[str, int],
        reference: tuple[str, int],
        **inputs: Any,
    ) -> str:
        """SCSColorizeReference."""
        values = {
            "reference_batch": "all for every picture",
            "working_size": 0,
            "strength": 1.0,
            **inputs,
        }
        return self.add(
            "SCSColorizeReference", model=model, image=image, reference=reference, **values
        )

    def upscale(self, lab: tuple[str, int], scale: float = 2.0, **inputs: Any) -> tuple[str, int]:
        """SCSContinuousUpscale."""
        return self.add(
            "SCSContinuousUpscale",
            lab=lab,
            size_by=inputs.pop("size_by", "scale"),
            scale=scale,
            **inputs,
        ), 0

    def viz(self, attention: tuple[str, int], points: str = "0.5, 0.5", **inputs: Any) -> str:
        """AttentionMapViz."""
        values = {"level": "all", "what": "attention", **inputs}
        return self.add("AttentionMapViz", attention=attention, points=points, **values)

    def preview(self, image: tuple[str, int]) -> str:
        """PreviewImage."""
        return self.add("PreviewImage", images=image)


def pictures(server: Any, outputs: dict[str, Any], node: str) -> list[np.ndarray]:
    """What a preview node shows, each (H, W, C) float 0..1."""
    return [
        np.asarray(Image.open(io.BytesIO(server.view(i)))) / 255 for i in outputs[node]["images"]
    ]


def shown(server: Any, prompt: Prompt, *images: tuple[str, int]) -> list[np.ndarray]:
    """Runs the prompt; the pictures of these outputs together."""
    previews = [prompt.preview(image) for image in images]
    outputs = server.run(prompt)
    return [picture for node in previews for picture in pictures(server, outputs, node)]


def chain(scale: float = 1.5, image: str = ALPS, **auto: Any) -> tuple[Prompt, str, str]:
    """Load, colorize, enlarge, and a preview of both pictures."""
    p = Prompt()
    node = p.auto(p.load(TINY), p.image(image), **auto)
    return p, p.preview(p.upscale((node, 0), scale)), p.preview((node, 1))
