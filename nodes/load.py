"""LoadSCSNet: weights -> SCSNET_MODEL."""

from __future__ import annotations

import re
from pathlib import Path

from comfy_api.latest import io

from ..scsnet import checkpoint
from ..scsnet.checkpoint import hub
from . import download, host
from .compat import make_schema
from .types import Model, SCSNetModel

BUNDLED = "bundled"
KNOWN: tuple[str, ...] = ()
"""Published weights offered by name, "hf:owner/repo/file.safetensors@<commit>". None has been published yet."""
_ADDRESS = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>[^/?#]+/[^/?#]+)"
    r"(?:/(?:blob|resolve|tree|raw)/(?P<revision>[^/?#]+)(?P<file>/[^?#]*)?)?/?(?:[?#].*)?"
)


def to_hub_source(hub_id: str) -> str:
    """Convert owner/repo[/file][@revision], or an address of a repository or file on the Hub, to a `hub` source.

    Raises ValueError for anything else.
    """
    text = hub_id.strip().removeprefix(hub.PREFIX)
    address = _ADDRESS.fullmatch(text)
    if address is not None:
        revision = "@" + address["revision"] if address["revision"] else ""
        text = (
            address["repo"] + (address["file"] or "").rstrip("/") + revision.removesuffix("@main")
        )
    source = hub.PREFIX + text
    try:
        hub.parse(source)
    except ValueError as error:
        raise ValueError(
            "hub_id: expected owner/repo[/file.safetensors][@revision] or an address such as "
            f"https://huggingface.co/owner/repo, got {hub_id.strip()!r} (only .safetensors files are read)"
        ) from error
    return source


def locate_in_models(source: str) -> tuple[str, hub.HubFile]:
    """Return the folder below models/scsnet for the files of a Hub source, and the parsed source.

    Each repository and revision has its own folder: a file in it belongs to that revision and is not downloaded again.
    """
    file = hub.parse(source)
    revision = "" if file.revision == "main" else "@" + file.revision.replace("/", "_")
    return file.repo.replace("/", "--") + revision, file


def find_local(name: str, hub_id: str) -> Path | None:
    """Return the path of the weights on this machine; None where they must be downloaded or do not exist."""
    if hub_id.strip() or name in KNOWN:
        folder, file = locate_in_models(to_hub_source(hub_id) if hub_id.strip() else name)
        return host.weights_path(f"{folder}/{file.file}")
    return checkpoint.BUNDLED if name == BUNDLED else host.weights_path(name)


def find_or_download(name: str, hub_id: str) -> Path:
    """Return the path of the weights. Raises ValueError, FileNotFoundError and hub.HubError."""
    path = find_local(name, hub_id)
    if hub_id.strip() or name in KNOWN:
        source = to_hub_source(hub_id) if hub_id.strip() else name
        return path or download.fetch(source, host.download_folder() / locate_in_models(source)[0])
    if name == BUNDLED:
        return checkpoint.resolve(BUNDLED)
    if path is None:
        files = ", ".join(host.weights_files()) or "no .safetensors file"
        raise FileNotFoundError(
            f"Checkpoint not found: {name!r} in {host.download_folder()} (there: {files}). Put the file there and press "
            f"R to refresh the list, or choose {BUNDLED!r}."
        )
    return path


class LoadSCSNet(io.ComfyNode):
    """Loads the weights of a network."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; its help page is docs/LoadSCSNet.md."""
        return make_schema(
            node_id="LoadSCSNet",
            display_name="Load SCSNet",
            category="SCSNet",
            description="Loads the network that colorizes and enlarges gray pictures. The bundled weights need no download.",
            search_aliases=[
                "colorize model",
                "colorization checkpoint",
                "scsnet loader",
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
                    tooltip="Instead of the checkpoint: weights on the Hugging Face Hub, as owner/repo[/file.safetensors]"
                    "[@revision] or as the address of the page. Downloaded once, into models/scsnet, when the node runs. "
                    "Empty: use the checkpoint.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", "fp32", "fp16", "bf16"],
                    default="auto",
                    optional=True,
                    tooltip="Number type to compute in. auto follows ComfyUI: bf16 or fp16 on GPUs that are good at it, fp32 "
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
        """Return what makes ComfyUI load again: the inputs, and time and size of the file."""
        try:
            path = find_local(checkpoint, hub_id)
            stat = path.stat() if path else None
        except (ValueError, OSError):  # `execute` raises it again, where ComfyUI shows it
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
        """Load the weights. Raises ValueError, FileNotFoundError and hub.HubError, which name the file."""
        return io.NodeOutput(load(checkpoint, hub_id, dtype))


def load(name: str, hub_id: str, dtype: str) -> Model:
    """Load the network and put it under the host's memory management."""
    network_dtype = host.network_dtype(dtype)
    path = find_or_download(name, hub_id)
    net = checkpoint.load(path, dtype=network_dtype)
    if net.config.head != "cpm":
        raise ValueError(
            f"{path}: expected weights with head 'cpm', got head {net.config.head!r}, which has a fixed scale"
        )
    return Model(host.wrap_network(net), hub_id.strip() or name)
