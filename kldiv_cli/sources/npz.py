"""NumPy's .npz archives: stored members are read in place, compressed ones through a temporary file."""

from __future__ import annotations

import lzma
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from typing import IO, Final, cast

from kldiv_cli.errors import DatasetError, FormatError, InputError
from kldiv_cli.sources.base import Source, describe, is_numeric
from kldiv_cli.sources.npy import LONGEST_HEADER, Header, open_npy, read_header
from kldiv_cli.sources.readable import File
from kldiv_cli.sources.regular import DescriptorFile

__all__ = [
    "DAMAGED",
    "MAGIC",
    "check_readable",
    "choose_member",
    "member_header",
    "member_names",
    "open_archive",
    "open_npz",
]

MAGIC: Final = b"PK\x03\x04"
_LOCAL_HEADER: Final = 30
_PIECE: Final = 1 << 20
DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
    OverflowError,
)


class _InflatedMember(DescriptorFile):
    """A compressed member, inflated once into a temporary file that vanishes when it is closed."""

    def __init__(self, archive: File, member: str, size: int) -> None:
        super().__init__(archive.path)
        self.archive = archive
        self.member = member
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def verify(self) -> None:
        self.archive.verify()

    def close(self) -> None:
        super().close()
        self.archive.close()

    def _new_descriptor(self) -> int:
        with tempfile.TemporaryFile() as temporary:
            self.archive.check_arrival()
            try:
                with open_archive(self.archive) as archive, archive.open(self.member) as contents:
                    shutil.copyfileobj(contents, temporary, 1 << 20)
            except InputError:
                raise
            except DAMAGED as error:
                if getattr(error, "errno", None):
                    where = tempfile.gettempdir()
                    raise InputError(
                        f"{self.path}: can't be unpacked into {where}: {error}; "
                        "set TMPDIR to where there is room"
                    ) from None
                raise FormatError(f"{self.path}: damaged .npz archive: {error}; write it again") from None
            temporary.flush()
            return os.dup(temporary.fileno())

    def __reduce__(self) -> tuple[type, tuple[File, str, int]]:
        return type(self), (self.archive, self.member, self._size)


def open_npz(address: str, file: File, member: str | None) -> Source:
    """Open one array of an archive; without a name it must be the only numeric one."""
    try:
        with open_archive(file) as archive:
            check_readable(address, archive)
            entry = archive.getinfo(choose_member(file.path, archive, member))
        if entry.compress_type != zipfile.ZIP_STORED:
            return open_npy(address, _InflatedMember(file, entry.filename, entry.file_size))
        start = _start_of_contents(address, file, entry)
        _check_crc(address, file, start, entry)
        return open_npy(address, file, start=start, size=entry.file_size)
    except InputError:
        raise
    except DAMAGED as error:
        raise FormatError(f"{file.path}: damaged .npz archive: {error}; write it again") from None


def open_archive(file: File) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(cast("str | IO[bytes]", file.stream()))
    except OSError as error:
        raise InputError(f"{file.path}: {error.strerror}") from None
    archive.filename = file.path
    return archive


def check_readable(address: str, archive: zipfile.ZipFile) -> None:
    if any(entry.flag_bits & 1 for entry in archive.infolist()):
        raise FormatError(f"{address}: the archive is encrypted; write it without a password")


def member_names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith(".npy")]


def _start_of_contents(address: str, file: File, entry: zipfile.ZipInfo) -> int:
    header = file.read(entry.header_offset, _LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(MAGIC):
        raise FormatError(f"{address}: damaged .npz archive; write it again")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return entry.header_offset + _LOCAL_HEADER + names


def _check_crc(address: str, file: File, start: int, entry: zipfile.ZipInfo) -> None:
    """Read a stored member once for its checksum, which reading it in place would never see."""
    if start + entry.file_size > file.size:
        raise FormatError(f"{address}: truncated .npz archive; write it again")
    piece = max(_PIECE, 16 * file.request_bytes)
    buffer = memoryview(bytearray(min(entry.file_size, piece)))
    crc, done = 0, 0
    while done < entry.file_size:
        part = buffer[: entry.file_size - done]
        file.read_into(part, start + done)
        crc = zlib.crc32(part, crc)
        done += len(part)
    if crc != entry.CRC:
        raise FormatError(f"{address}: damaged .npz archive: wrong checksum; write it again")


def choose_member(path: str, archive: zipfile.ZipFile, member: str | None) -> str:
    names = member_names(archive)
    if member is not None:
        wanted = member.removesuffix(".npy") + ".npy"
        if wanted in names:
            return wanted
        raise DatasetError(f"{path}: no array {member!r}; it has {_listing(archive, names)}")
    numeric = [name for name in names if is_numeric(member_header(archive, name).dtype)]
    if len(numeric) == 1:
        return numeric[0]
    if not numeric:
        raise DatasetError(f"{path}: no numeric array; it has {_listing(archive, names)}")
    example = f"{path}::{numeric[0].removesuffix('.npy')}"
    raise DatasetError(
        f"{path}: {len(numeric)} arrays; it has {_listing(archive, numeric)}; name one as {example}"
    )


def _listing(archive: zipfile.ZipFile, names: list[str]) -> str:
    headers = ((name, member_header(archive, name)) for name in names)
    return describe((name.removesuffix(".npy"), header.shape, header.dtype) for name, header in headers)


def member_header(archive: zipfile.ZipFile, name: str) -> Header:
    with archive.open(name) as contents:
        beginning = contents.read(LONGEST_HEADER + 12)
    size = archive.getinfo(name).file_size
    address = f"{archive.filename}::{name.removesuffix('.npy')}"
    return read_header(address, lambda offset, length: beginning[offset : offset + length], size)
