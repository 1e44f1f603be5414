"""A pack for measure.py, which links it in: what ComfyUI's caches hold, and what its RAM cache believes to free."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass

import torch
from aiohttp import web
from comfy_execution.caching import BasicCache
from server import PromptServer

NODE_CLASS_MAPPINGS: dict[str, type] = {}
BUNDLES = {"Lab": "SCS_LAB", "Attention": "SCS_ATTENTION"}


def find_tensors(value: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in fields, lists, tuples and dicts; those that are there twice, twice."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from find_tensors(item)
    elif isinstance(value, Mapping):
        yield from find_tensors(list(value.values()))
    if is_dataclass(value):
        yield from find_tensors(vars(value))


def count_bytes(value: object) -> int:
    """Bytes of the tensors' memory, shared memory counted once."""
    storages = [tensor.untyped_storage() for tensor in find_tensors(value)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def caches() -> list[BasicCache]:
    """The caches of nodes' outputs."""
    return [thing for thing in gc.get_objects() if isinstance(thing, BasicCache)]


@PromptServer.instance.routes.get("/held_memory")
async def held(_: web.Request) -> web.Response:
    """Bytes of all bundles that are alive, by type, and of everything in the caches."""
    gc.collect()
    alive = gc.get_objects()
    result = {
        name: sum(count_bytes(x) for x in alive if isinstance(x, list) and type(x).__name__ == kind)
        for kind, name in BUNDLES.items()
    }
    return web.json_response(result | {"caches": count_bytes([cache.cache for cache in caches()])})


@PromptServer.instance.routes.post("/held_memory/release")
async def release(_: web.Request) -> web.Response:
    """Have the RAM cache free all that it can; the bytes that it counts."""
    found = [cache for cache in caches() if hasattr(cache, "ram_release")]
    return web.json_response(sum(cache.ram_release(2**62, free_active=True) for cache in found))
