"""Small doubles of the parts of ComfyUI that nodes/ talks to, so that its logic is tested without ComfyUI.

They keep the shape of ComfyUI 0.3.64; what the real one does is tested in tests/comfyui.
"""

import importlib.util
import sys
import types
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
PACK = "scsnet_pack_under_test"
CPU = torch.device("cpu")


class InterruptError(Exception):
    """As comfy.model_management.InterruptProcessingException."""


class MemoryExhaustedError(RuntimeError):
    """As torch.cuda.OutOfMemoryError."""


@dataclass
class Host:
    """What the doubles have seen, and what they shall answer."""

    models_dir: str
    device: torch.device = CPU
    offload: torch.device = CPU
    intermediate: torch.device = CPU
    free: dict = field(default_factory=lambda: {"cpu": 2**33, "meta": 2**33})
    loaded: list = field(default_factory=list)
    progress: list = field(default_factory=list)
    asked: int = 0
    interrupt_after: int | None = None
    bf16: bool = False
    fp16: bool = False
    force_fp16: bool = False
    emptied: int = 0


def _management(host):
    module = types.ModuleType("comfy.model_management")

    def ask():
        host.asked += 1
        if host.interrupt_after is not None and host.asked > host.interrupt_after:
            raise InterruptError

    def load(models, memory_required=0, force_full_load=False):
        host.loaded.append((models[0], memory_required, force_full_load))

    def empty(force=False):
        host.emptied += 1

    module.get_torch_device = lambda: host.device
    module.unet_offload_device = lambda: host.offload
    module.intermediate_device = lambda: host.intermediate
    module.get_free_memory = lambda device=None: host.free[device.type]
    module.should_use_bf16 = lambda device=None: host.bf16
    module.should_use_fp16 = lambda device=None: host.fp16
    module.supports_cast = lambda device, dtype: True
    module.load_models_gpu = load
    module.soft_empty_cache = empty
    module.throw_exception_if_processing_interrupted = ask
    module.OOM_EXCEPTION = MemoryExhaustedError
    module.InterruptProcessingException = InterruptError
    return module


class ModelPatcher:
    """As comfy.model_patcher.ModelPatcher."""

    def __init__(self, model, load_device, offload_device, size=0):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device


def _utils(host):
    module = types.ModuleType("comfy.utils")

    class ProgressBar:
        def __init__(self, total, node_id=None):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            self.total = total or self.total
            host.progress.append((value, self.total))

    module.ProgressBar = ProgressBar
    return module


def _folders(host):
    module = types.ModuleType("folder_paths")
    module.models_dir = host.models_dir
    module.folder_names_and_paths = {}
    module.temp = str(Path(host.models_dir, "temp"))

    def add(name, path, is_default=False):
        paths, endings = module.folder_names_and_paths.get(name, ([], set()))
        module.folder_names_and_paths[name] = (
            [*paths, *([] if path in paths else [path])],
            endings,
        )

    def names(name):
        paths, endings = module.folder_names_and_paths[name]
        found = (
            p
            for folder in paths
            for p in Path(folder).rglob("*")
            if p.is_file() and (not endings or p.suffix in endings)
        )
        return sorted({str(p.relative_to(f)) for p in found for f in paths if p.is_relative_to(f)})

    def full(name, file):
        for folder in module.folder_names_and_paths[name][0]:
            if Path(folder, file).is_file():
                return str(Path(folder, file))
        return None

    module.add_model_folder_path, module.get_filename_list, module.get_full_path = add, names, full
    module.get_folder_paths = lambda name: list(module.folder_names_and_paths[name][0])
    module.get_temp_directory = lambda: module.temp
    return module


class Thing:
    """An input, output or schema: remembers what it was made with."""

    def __init__(self, id=None, *args, **values):
        self.id, self.args, self.values, self.extra_dict = id, args, values, {}


def _kind(name):
    inside = {part: type(part, (Thing,), {"io_type": name}) for part in ("Input", "Output")}
    return type(name, (), {"io_type": name, **inside})


@dataclass
class Schema:
    """As io.Schema of 0.3.64: it knows no search_aliases."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list | None = None
    outputs: list | None = None
    hidden: list | None = None
    description: str = ""
    is_output_node: bool = False

    def __post_init__(self):
        """The host refuses a pack in which an input and an output of a node have one id."""
        shared = {item.id for item in self.inputs} & {item.id for item in self.outputs if item.id}
        if shared:
            raise ValueError(f"Ids must be unique between inputs and outputs, but {shared} are not")


class NodeOutput:
    """As io.NodeOutput."""

    def __init__(self, *args, ui=None):
        self.args, self.ui = args, ui


def _api():
    latest, io, ui = (types.ModuleType(f"comfy_api.latest{part}") for part in ("", ".io", ".ui"))
    for name in ("Image", "Mask", "Int", "Float", "String", "Boolean", "Combo"):
        setattr(io, name, _kind(name.upper()))
    io.Custom, io.Schema, io.NodeOutput = _kind, Schema, NodeOutput
    io.ComfyNode, io.Input, io.Output = type("ComfyNode", (), {}), Thing, Thing
    io.Hidden = types.SimpleNamespace(prompt="PROMPT", extra_pnginfo="EXTRA_PNGINFO")

    class PreviewImage:
        def __init__(self, image, cls=None, **_):
            self.images = image

        def as_dict(self):
            return {
                "images": [
                    {"filename": f"{i}.png", "subfolder": "", "type": "temp"}
                    for i in range(len(self.images))
                ]
            }

    ui.PreviewImage = PreviewImage
    latest.io, latest.ui, latest.ComfyExtension = io, ui, type("ComfyExtension", (), {})
    return {"comfy_api.latest": latest, "comfy_api.latest.io": io, "comfy_api.latest.ui": ui}


@contextmanager
def pack(host, version="0.3.64"):
    """The pack, loaded by file location as ComfyUI loads it, with the doubles in place of ComfyUI."""
    utils, patcher = _utils(host), types.ModuleType("comfy.model_patcher")
    patcher.ModelPatcher = ModelPatcher
    version_module = types.ModuleType("comfyui_version")
    version_module.__version__ = version
    arguments = types.ModuleType("comfy.cli_args")
    arguments.args = types.SimpleNamespace(force_fp16=host.force_fp16)
    comfy = types.ModuleType("comfy")
    comfy.cli_args = arguments
    comfy.model_management, comfy.model_patcher, comfy.utils = _management(host), patcher, utils
    doubles = {
        "comfy": comfy, "comfy.cli_args": arguments, "comfy.model_management": comfy.model_management, "comfy.model_patcher": patcher,
        "comfy.utils": utils, "folder_paths": _folders(host), "comfyui_version": version_module,
        "comfy_api": types.ModuleType("comfy_api"), **_api(),
    }  # fmt: skip
    before = dict(sys.modules)
    sys.modules.update(doubles)
    try:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        for name in [
            n for n in sys.modules if n == PACK or n.startswith(f"{PACK}.") or n in doubles
        ]:
            del sys.modules[name]
        sys.modules.update({name: before[name] for name in doubles if name in before})
