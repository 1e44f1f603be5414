"""LoadSCSNet: weights -> SCSNET_MODEL."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..scsnet import checkpoint
from ..scsnet.checkpoint import hub
from . import download, host
from .compat import schema
from .types import Model, SCSNetModel

BUNDLED = "bundled"
KNOWN: tuple[str, ...] = ()
"""Published weights offered by name, "hf:owner/repo/file.safetensors@<commit>". None has been published yet."""


def hub_source(hub_id: str) -> str:
    """What the user typed, owner/repo[/file][@revision] -> the same as `scsnet.checkpoint.hub` spells it."""
    return hub.PREFIX + hub_id.strip().removeprefix(hub.PREFIX)


def hub_place(source: str) -> tuple[str, hub.HubFile]:
    """A Hub source -> the folder below models/scsnet that its files live in.

    Each repository and revision has its own: a file that is there is the right one, and is never fetched again.
    """
    wanted = hub.parse(source)
    revision = "" if wanted.revision == "main" else "@" + wanted.revision.replace("/", "_")
    return wanted.repo.replace("/", "--") + revision, wanted


def local_path(name: str, hub_id: str) -> Path | None:
    """The weights on this machine; None where they would have to be downloaded, or do not exist."""
    if hub_id.strip() or name in KNOWN:
        place, wanted = hub_place(hub_source(hub_id) if hub_id.strip() else name)
        return host.weights_path(f"{place}/{wanted.file}")
    return checkpoint.BUNDLED if name == BUNDLED else host.weights_path(name)


def find(name: str, hub_id: str) -> Path:
    """The weights on this machine, downloaded if need be. Errors: ValueError, FileNotFoundError, hub.HubError."""
    path = local_path(name, hub_id)
    if hub_id.strip() or name in KNOWN:
        source = hub_source(hub_id) if hub_id.strip() else name
        folder = host.download_folder() / hub_place(source)[0]
        return path or download.fetch(source, folder)
    if name == BUNDLED:
        return checkpoint.resolve(BUNDLED)
    if path is None:
        files = ", ".join(host.weights_files()) or "no .safetensors file"
        raise FileNotFoundError(
            f"checkpoint {name!r} is not in {host.download_folder()} (there: {files}). Put the file there and press R "
            f"to refresh, or choose {BUNDLED!r}."
        )
    return path


class LoadSCSNet(io.ComfyNode):
    """Weights -> SCSNET_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See docs/LoadSCSNet.md."""
        return schema(
            node_id="LoadSCSNet",
            display_name="Load SCSNet",
            category="SCSNet",
            description="Loads the network that colorizes and enlarges gray pictures. The bundled weights need no download.",
            search_aliases=[
                "colorize model",
                "colorization checkpoint",
                "scsnet loader",
                "old photo model",
            ],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=[BUNDLED, *host.weights_files(), *KNOWN],
                    default=BUNDLED,
                    tooltip="Weights: those that come with the pack, or a .safetensors file in models/scsnet (also "
                    "the key 'scsnet' of extra_model_paths.yaml).",
                ),
                io.String.Input(
                    "hub_id",
                    default="",
                    optional=True,
                    tooltip="Instead of the checkpoint: weights of the Hugging Face Hub, owner/repo[/file.safetensors]"
                    "[@revision]. Downloaded once, into models/scsnet, when the node runs. Empty: use the checkpoint.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", "fp32", "fp16", "bf16"],
                    default="auto",
                    optional=True,
                    tooltip="Numbers to compute in. auto follows ComfyUI: bf16 or fp16 on GPUs that are good at it, fp32 "
                    "on the CPU. Colours are always converted in fp32.",
                ),
            ],
            advanced=["hub_id", "dtype"],
            outputs=[
                SCSNetModel.Output("model", display_name="model", tooltip="For the colorize nodes.")
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, checkpoint: str, hub_id: str = "", dtype: str = "auto"
    ) -> list[str | float]:
        """Load again when the file has changed, or another one is asked for."""
        try:
            path = local_path(checkpoint, hub_id)
            stat = path.stat() if path else None
        except (ValueError, OSError):  # the same will be said, loudly, when the node runs
            stat = None
        return [
            checkpoint,
            hub_id,
            dtype,
            stat.st_mtime if stat else 0.0,
            stat.st_size if stat else 0,
        ]

    @classmethod
    def execute(cls, checkpoint: str, hub_id: str = "", dtype: str = "auto") -> io.NodeOutput:
        """Errors: messages that name the file, the reason and what to do."""
        return io.NodeOutput(load(checkpoint, hub_id, dtype))


def load(name: str, hub_id: str, dtype: str) -> Model:
    """The network under the host's memory management."""
    chosen = host.network_dtype(dtype)
    path = find(name, hub_id)
    net = checkpoint.load(path, dtype=chosen)
    if net.config.head != "cpm":
        raise ValueError(
            f"{path} holds the fixed x4 network of an ablation; the nodes need one for all sizes (head 'cpm')"
        )
    return Model(host.patched(net), hub_id.strip() or name)
