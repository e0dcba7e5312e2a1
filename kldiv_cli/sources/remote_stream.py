"""A remote file as libraries read files: seek and read, through a bounded cache that reads ahead."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kldiv_cli.sources.readable import ReadableFile

__all__ = ["RemoteStream"]

_PAGE: Final = 1 << 20
_PAGES: Final = 12
"""Kept, those used last."""
_AHEAD: Final = 8
"""Pages that are read at once where reading goes on and on."""


class RemoteStream(io.RawIOBase):
    """Bytes of a file from where `seek` says."""

    def __init__(self, file: ReadableFile) -> None:
        super().__init__()
        self.file = file
        self.name = file.path
        self._position = 0
        self._pages: OrderedDict[int, memoryview] = OrderedDict()
        self._next = -1
        """The page behind the last that was read ahead."""
        self._ahead = 1
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.file.size}[whence]
        if start + offset < 0:
            raise OSError(f"{self.name}: seek to {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self.file.size - self._position)]
        with self._lock:
            self._read(view, self._position)
        self._position += len(view)
        return len(view)

    def _read(self, view: memoryview, offset: int) -> None:
        """Large reads go past the cache."""
        if len(view) > _AHEAD * _PAGE:
            self.file.read_into(view, offset)
            return
        done = 0
        while done < len(view):
            number, inside = divmod(offset + done, _PAGE)
            last = (offset + len(view) - 1) // _PAGE
            page = self._page(number, last - number + 1)
            count = min(len(page) - inside, len(view) - done)
            view[done : done + count] = page[inside : inside + count]
            done += count

    def _page(self, number: int, wanted: int) -> memoryview:
        if number not in self._pages:
            self._fetch(number, wanted)
        self._pages.move_to_end(number)
        return self._pages[number]

    def _fetch(self, number: int, wanted: int) -> None:
        """Read a page, those that are wanted behind it, and more where the last read ended here."""
        self._ahead = min(2 * self._ahead, _AHEAD) if number == self._next else 1
        count = max(wanted, self._ahead)
        start = number * _PAGE
        contents = memoryview(bytearray(min(count * _PAGE, self.file.size - start)))
        self.file.read_into(contents, start)
        for place in range(0, len(contents), _PAGE):
            self._pages[number + place // _PAGE] = contents[place : place + _PAGE]
        self._next = number + count
        while len(self._pages) > _PAGES:
            self._pages.popitem(last=False)
