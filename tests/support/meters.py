"""What a computation does, on any machine: operations, bytes alive at once."""

import weakref
from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from scsnet import onednn


def count_operations(function):
    """Call a function; return the operations that PyTorch counts: operator -> two for each multiplication.

    PyTorch does not know oneDNN's operators, which are switched off.
    """
    plain, math = patch.object(onednn, "FORMATS", frozenset()), sdpa_kernel(SDPBackend.MATH)
    with plain, math, torch.no_grad(), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_flop_counts()["Global"]


class Peak(TorchDispatchMode):
    """Bytes of all storages made inside and alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = {}

    def _gone(self, key, nbytes):
        self.now -= nbytes
        self.seen.pop(key, None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inside = {t.untyped_storage()._cdata for t in args if isinstance(t, torch.Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in inside or key in self.seen:
                continue
            self.seen[key] = weakref.finalize(storage, self._gone, key, storage.nbytes())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        return result
