"""The Triton kernel of CPM compiled for GPUs that need not be there. Run by test_cpm_dispatch.py in a process of its
own, without the interpreter.
"""

import re
import subprocess

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from scsnet.cpm.triton_kernel import _cpm, list_plans

SHARED = {80: 163, 86: 99, 90: 227, 120: 99}  # KiB that a program may take
HALF = {"bfloat16": "*bf16", "float16": "*fp16"}
CASES = [(90, "bfloat16", p) for p in list_plans((9, 0))] + [
    (86, "float16", p) for p in list_plans((8, 6))
]


def compiled(capability, dtype, plan, channels=256):
    """What `planes` would launch."""
    constants = {
        "C": channels,
        "DOWN": plan.down,
        "ACROSS": plan.across,
        "PART": plan.part,
        "PRECISION": "tf32",
        "WIDEN": False,
    }
    signature, aligned = {}, []
    for name in _cpm.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in ("n", "m") or name.endswith("_stride"):
            signature[name] = "i32"
        elif name.endswith("_source"):
            signature[name] = "*i64"
        elif name.startswith(("row_", "column_")) or name == "out":
            signature[name] = "*fp32"
        else:
            signature[name] = HALF[dtype]
        if name not in constants and name not in ("n", "m", "coordinates_stride"):
            aligned.append(name)
    position = {name: (index,) for index, name in enumerate(_cpm.arg_names)}
    source = ASTSource(
        _cpm,
        signature,
        {position[name]: value for name, value in constants.items()},
        {position[name]: [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": plan.warps, "num_stages": plan.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize(("capability", "dtype", "plan"), CASES, ids=str)
def test_fits_the_chip(capability, dtype, plan, tmp_path):
    kernel = compiled(capability, dtype, plan)
    assert kernel.metadata.shared <= SHARED[capability] * 1024
    # tensor cores, and features read 16 bytes at a time
    assert ("wgmma" if capability == 90 else "mma.sync") in kernel.asm["ptx"]
    assert "ld.global.v4.b32" in kernel.asm["ptx"] or "cp.async" in kernel.asm["ptx"]
    cubin = tmp_path / "cpm.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"STACK:(\d+)", usage)[1] == "0", usage  # no registers spilled
