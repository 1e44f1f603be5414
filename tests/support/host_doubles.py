"""Small doubles of the parts of ComfyUI that nodes/ talks to, so that its logic is tested without ComfyUI.

They keep the shape of ComfyUI 0.3.64; what the real one does is tested in tests/comfyui.
"""

import importlib.util
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

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
    free: dict = field(default_factory=lambda: {"cpu": 2**33})
    loaded: list = field(default_factory=list)
    progress: list = field(default_factory=list)
    asked: int = 0
    interrupt_after: int | None = None
    bf16: bool = False
    fp16: bool = False
    force_fp16: bool = False

    def load(self, models, memory_required=0, force_full_load=False):
        self.loaded.append((models[0], memory_required, force_full_load))

    def ask(self):
        self.asked += 1
        if self.interrupt_after is not None and self.asked > self.interrupt_after:
            raise InterruptError


def _management(host):
    return SimpleNamespace(
        get_torch_device=lambda: CPU,
        unet_offload_device=lambda: CPU,
        intermediate_device=lambda: CPU,
        get_free_memory=lambda device=None: host.free[device.type],
        should_use_bf16=lambda device=None: host.bf16,
        should_use_fp16=lambda device=None: host.fp16,
        supports_cast=lambda device, dtype: True,
        load_models_gpu=host.load,
        soft_empty_cache=lambda force=False: None,
        throw_exception_if_processing_interrupted=host.ask,
        OOM_EXCEPTION=MemoryExhaustedError,
    )


def _make_patcher(model, **devices):
    return SimpleNamespace(model=model, **devices)


def _utils(host):
    def make_bar(total, node_id=None):
        def update(value, total=total, preview=None):
            host.progress.append((value, total))

        return SimpleNamespace(update_absolute=update)

    return SimpleNamespace(ProgressBar=make_bar)


def _folders(host):
    registered = {}

    def add(name, path, is_default=False):
        paths, _ = registered.setdefault(name, ([], set()))
        if path not in paths:
            paths.append(path)

    def names(name):
        paths, endings = registered[name]
        files = ((file, path) for path in paths for file in Path(path).rglob("*"))
        return sorted(
            str(f.relative_to(p)) for f, p in files if f.suffix in endings and f.is_file()
        )

    def full(name, file):
        found = (Path(folder, file) for folder in registered[name][0])
        return next((str(path) for path in found if path.is_file()), None)

    return SimpleNamespace(
        models_dir=host.models_dir,
        folder_names_and_paths=registered,
        add_model_folder_path=add,
        get_filename_list=names,
        get_full_path=full,
        get_folder_paths=lambda name: list(registered[name][0]),
    )


class Thing:
    """An input or output: remembers what it was made with."""

    def __init__(self, id=None, **values):
        self.id, self.values, self.extra_dict = id, values, {}


def _kind(name):
    inside = {part: type(part, (Thing,), {"io_type": name}) for part in ("Input", "Output")}
    return type(name, (), {"io_type": name, **inside})


@dataclass
class Schema:
    """As io.Schema of 0.3.64: it knows no search_aliases."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = ()
    outputs: list = ()
    description: str = ""
    is_output_node: bool = False

    def __post_init__(self):
        """The host refuses a pack in which an input and an output of a node have one id."""
        shared = {item.id for item in self.inputs} & {item.id for item in self.outputs if item.id}
        if shared:
            raise ValueError(f"Ids must be unique between inputs and outputs, but {shared} are not")


def _make_output(*args, ui=None):
    return SimpleNamespace(args=args, ui=ui)


def _make_preview(image, cls=None):
    files = [{"filename": f"{i}.png", "type": "temp"} for i in range(len(image))]
    return SimpleNamespace(as_dict=lambda: {"images": files})


def _api():
    kinds = ("Image", "Mask", "Int", "Float", "String", "Boolean", "Combo")
    io = SimpleNamespace(
        **{name: _kind(name.upper()) for name in kinds},
        Custom=_kind,
        Schema=Schema,
        NodeOutput=_make_output,
        Input=Thing,
        Output=Thing,
        ComfyNode=object,
    )
    ui = SimpleNamespace(PreviewImage=_make_preview)
    return SimpleNamespace(io=io, ui=ui, ComfyExtension=object)


@contextmanager
def pack(host, version="0.3.64"):
    """The pack, loaded by file location as ComfyUI loads it, with the doubles in place of ComfyUI."""
    parts = {
        "cli_args": SimpleNamespace(args=host),
        "model_management": _management(host),
        "model_patcher": SimpleNamespace(ModelPatcher=_make_patcher),
        "utils": _utils(host),
    }
    doubles = {
        "comfy": SimpleNamespace(**parts),
        **{f"comfy.{name}": part for name, part in parts.items()},
        "folder_paths": _folders(host),
        "comfyui_version": SimpleNamespace(__version__=version),
        "comfy_api": SimpleNamespace(),
        "comfy_api.latest": _api(),
    }
    before = dict(sys.modules)
    sys.modules.update(doubles)
    try:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        module = sys.modules[PACK] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        for name in list(sys.modules):
            if name in doubles or name.split(".")[0] == PACK:
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in doubles if name in before})
