"""A device that is far away, for tests without a GPU: tensors in host memory that behave as a GPU's do for Python.

Inside :class:`FarDevice` some tensors count as the device's: those made with ``device="cuda"``, modules' parameters,
and whatever is computed from such. They say that they are on ``cuda:0``. All is computed for real, by the CPU kernels.
An operation that would make the host wait for a GPU, because Python wants to know a value or a shape depends on one,
raises :class:`WaitedError`; so does one that mixes the device's tensors with the host's, which a GPU either refuses or
copies across. Within :meth:`FarDevice.waiting` it is allowed, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda:0")
CPU = torch.device("cpu")

WAITS = {
    *("item", "tolist", "numpy", "cpu", "nonzero", "argwhere", "unique", "unique_consecutive", "masked_select"),
    *("__bool__", "__float__", "__int__", "__index__", "__contains__", "__array__", "equal", "allclose", "bincount"),
    *("is_nonzero", "histc", "__repr__", "pin_memory"),
}
# These may read or write a little on the other side, as torch allows.
MIXES = {"copy_", "to", "cpu", "__get__", "__set__"}


class WaitedError(AssertionError):
    """The host would have waited for the device."""


class OnDevice(Tensor):
    """A tensor of the device's."""


def of_device(value: Any) -> bool:
    """Whether it is one of the device's."""
    return isinstance(value, OnDevice | torch.nn.Parameter)


def _moved(value: Any) -> Any:
    return value.as_subclass(OnDevice) if isinstance(value, Tensor) and not of_device(value) else value


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class FarDevice(TorchFunctionMode):
    """See the module.

    Attributes
    ----------
    waits : int
        How often somebody waited where it was allowed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self._allowed = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Here the host may wait."""
        before, self._allowed = self._allowed, True
        try:
            yield
        finally:
            self._allowed = before

    def trusted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function of torch's own, which asks C++ for the device and so is told the truth: not looked at."""

        def call(*args: Any, **kwargs: Any) -> Any:
            before = self.waits
            with self.waiting():
                result = function(*args, **kwargs)
            self.waits = before
            return result

        return call

    def put(self, values: Tensor, device: torch.device | str) -> Tensor:
        """What ``nri_fast.graph.to_device`` does."""
        return _moved(values) if _is_cuda(device) else values

    def _waits(self, name: str, why: str) -> None:
        if not self._allowed:
            raise WaitedError(f"{name}: {why}")
        self.waits += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every call of torch's."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        far = any(of_device(t) for t in tensors)
        if getattr(func, "__self__", None) is Tensor.device:
            return CUDA if far else CPU
        if getattr(func, "__self__", None) is Tensor.is_cuda:
            return far
        wanted = kwargs.get("device")
        if name == "to" and len(args) > 1 and isinstance(args[1], str | torch.device):
            wanted, args = args[1], (args[0], *args[2:])
        if _is_cuda(wanted):
            kwargs["device"] = CPU
            if name == "to" and tensors and not far:
                self._waits(name, "a copy to the device that is not by to_device")
            far = True
        elif far and wanted is not None:
            self._waits(name, "the host wants the device's values")
            kwargs["device"] = CPU
            return self._call(func, args, kwargs).as_subclass(Tensor)
        if far and name in WAITS:
            self._waits(name, "the host wants to know a value")
            result = self._call(func, args, kwargs)
            return result.as_subclass(Tensor) if name == "cpu" else result
        if far and name in ("__getitem__", "__setitem__"):
            keys = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(key, Tensor) and key.dtype in (torch.bool, torch.uint8) for key in keys):
                self._waits(name, "how many are chosen depends on values")
            if any(isinstance(key, list) for key in keys):
                self._waits(name, "places copied from host memory")
        if far and name == "repeat_interleave" and "output_size" not in kwargs and len(tensors) > 1:
            self._waits(name, "its length depends on values")
        if far and name == "tensor":
            self._waits(name, "a copy from host memory")
        if far and name not in MIXES and any(not of_device(t) and t.ndim > 0 for t in tensors):
            self._waits(name, "tensors of the device's and the host's")
        result = self._call(func, args, kwargs)
        if not far or isinstance(result, torch.Size):
            return result
        return tree_map(_moved, result)

    @staticmethod
    def _call(func: Any, args: Any, kwargs: Any) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
