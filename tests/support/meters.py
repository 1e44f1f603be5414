"""What a computation does, on any machine: multiplications, bytes alive at once."""

import math
import weakref
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CONVOLUTIONS = ("convolution", "_convolution_pointwise", "_convolution_pointwise_")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "_linear_pointwise")
ATTENTION = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_math_for_mps")


class Work(TorchDispatchMode):
    """Multiplications by convolutions, products of matrices and attention."""

    def __init__(self):
        super().__init__()
        self.kernels = Counter()  # shapes of the weights of convolutions -> times applied
        self.convolutions = self.products = self.attention = 0

    @property
    def total(self):
        return self.convolutions + self.products + self.attention

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not torch.is_inference_mode_enabled()  # there, operators made of others count as one
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        if name in CONVOLUTIONS:
            weight = next(t for t in reversed(tensors) if t.ndim == 4)  # a bias comes after it
            self.kernels[tuple(weight.shape)] += 1
            self.convolutions += result.numel() * math.prod(weight.shape[1:])
        elif name in PRODUCTS:
            matrices = [t for t in tensors if t.ndim > 1]
            self.products += result.numel() * matrices[0].shape[-1]
        elif name in ATTENTION:
            query, key, value = tensors[:3]
            pairs = query[..., 0].numel() * key.shape[-2]
            self.attention += pairs * (query.shape[-1] + value.shape[-1])
        else:
            assert "dot_product" not in name, name
        return result


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
