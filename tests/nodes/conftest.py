"""The pack, loaded with doubles in place of ComfyUI."""

import asyncio
import sys

import pytest
from host_doubles import Host, pack


@pytest.fixture
def host(tmp_path):
    return Host(str(tmp_path / "models"))


@pytest.fixture
def nodes(host):
    """The package nodes/, its modules as attributes."""
    with pack(host) as module:
        asyncio.run(module.comfy_entrypoint())
        yield sys.modules[f"{module.__name__}.nodes"]


@pytest.fixture
def scsnet(nodes):
    """The pack's own copy of the package scsnet, as nodes/ imports it."""
    return sys.modules[nodes.__name__.replace(".nodes", ".scsnet")]
