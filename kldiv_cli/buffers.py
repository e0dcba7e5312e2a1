"""Memory that is allocated once and reused for every block."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["Buffer", "Workspace"]


class Buffer:
    """One growing piece of memory, viewed as an array of whatever shape and dtype is needed now.

    A view is valid until the next one is taken.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> npt.NDArray[np.generic]:
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size > self._bytes.size:
            self._bytes = np.empty(0, np.uint8)
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype).reshape(shape)


class Workspace:
    """The named buffers of one worker."""

    def __init__(self) -> None:
        self._buffers: dict[str, Buffer] = {}

    def __getitem__(self, name: str) -> Buffer:
        return self._buffers.setdefault(name, Buffer())

    def floats(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return self[name].array(shape).view(np.float64)
