from __future__ import annotations

import os
import pickle
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kldiv_cli.errors import FormatError, InputChanged, InputError, InputNotFound
from kldiv_cli.sources.regular import RegularFile, check_regular

CONTENTS = bytes(range(256)) * 64


@pytest.fixture
def file(tmp_path: Path) -> Iterator[RegularFile]:
    path = tmp_path / "dump.bin"
    path.write_bytes(CONTENTS)
    file = RegularFile(str(path))
    yield file
    file.close()


def test_any_part_of_a_file_is_read_by_position(file: RegularFile) -> None:
    assert file.size == len(CONTENTS)
    for offset, length in [(0, 1), (300, 17), (0, len(CONTENTS)), (len(CONTENTS) - 1, 1), (5, 0)]:
        assert file.read(offset, length) == CONTENTS[offset : offset + length]


def test_reading_over_the_end_returns_what_there_is(file: RegularFile) -> None:
    assert file.read(len(CONTENTS) - 3, 8) == CONTENTS[-3:]
    assert file.read(len(CONTENTS) + 10, 8) == b""


def test_a_buffer_is_filled_from_its_offset(file: RegularFile) -> None:
    buffer = bytearray(1000)
    file.read_into(memoryview(buffer), 77)
    assert bytes(buffer) == CONTENTS[77:1077]


def test_threads_read_one_file_at_once(file: RegularFile) -> None:
    offsets = np.random.default_rng(1).integers(0, len(CONTENTS), 200).tolist()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda offset: file.read(offset, 50), offsets))
    assert parts == [CONTENTS[offset : offset + 50] for offset in offsets]


def test_a_closed_file_is_opened_again_by_the_next_read(file: RegularFile) -> None:
    file.read(0, 1)
    file.close()
    file.close()
    assert file.read(2, 2) == CONTENTS[2:4]


def test_no_descriptor_is_held_before_the_first_read_and_after_close(file: RegularFile) -> None:
    assert file._descriptor is None
    file.read(0, 1)
    assert file._descriptor is not None
    descriptor = file._descriptor
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_pickled_file_reads_the_same_bytes(file: RegularFile) -> None:
    copy = pickle.loads(pickle.dumps(file))
    assert copy.read(100, 50) == CONTENTS[100:150]
    copy.close()


def test_an_untouched_file_verifies(file: RegularFile) -> None:
    file.read(0, 10)
    file.verify()


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 10)


def rewrite(path: Path) -> None:
    status = path.stat()
    path.write_bytes(CONTENTS[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def replace(path: Path) -> None:
    status = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(CONTENTS)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)


def remove(path: Path) -> None:
    path.unlink()


def turn_into_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = [grow, shrink, rewrite, replace, remove, turn_into_a_directory]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_since_opening_is_found(file: RegularFile, change: object) -> None:
    change(Path(file.path))  # type: ignore[operator]
    with pytest.raises(InputChanged, match=r"dump\.bin: changed while it was read"):
        file.verify()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_pickled_file_finds_changes_made_before_it_was_unpickled(file: RegularFile, change: object) -> None:
    pickled = pickle.dumps(file)
    change(Path(file.path))  # type: ignore[operator]
    with pytest.raises(InputChanged):
        pickle.loads(pickled).verify()


def test_a_file_that_ends_before_what_is_read_was_truncated(file: RegularFile) -> None:
    file.read(0, 10)
    os.truncate(file.path, 1000)
    with pytest.raises(InputChanged, match=r"dump\.bin: ended at byte 1000 of 16384"):
        file.read(900, 200)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound, match=r"nothing\.npy: no such file") as caught:
        check_regular(str(tmp_path / "nothing.npy"))
    assert isinstance(caught.value, FileNotFoundError)


def test_a_path_through_a_file_is_not_found(file: RegularFile) -> None:
    with pytest.raises(InputNotFound, match="no such file"):
        check_regular(f"{file.path}/inner.npy")


def test_a_file_removed_before_its_first_read_is_an_input_error(file: RegularFile) -> None:
    os.unlink(file.path)
    with pytest.raises(InputError, match=r"dump\.bin: No such file"):
        file.read(0, 1)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").touch()
    with pytest.raises(FormatError, match=r"empty\.npy: empty file"):
        check_regular(str(tmp_path / "empty.npy"))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a directory, expected a regular file"):
        check_regular(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no FIFOs")
def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="a pipe"):
        check_regular(str(tmp_path / "fifo"))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the platform has no Unix sockets")
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may be about 100 bytes long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(InputError, match="a socket"):
            check_regular("socket")


@pytest.mark.skipif(os.name != "posix", reason="the null device is no file here")
def test_a_device_is_refused() -> None:
    with pytest.raises(InputError, match="a character device"):
        check_regular("/dev/null")


@pytest.mark.parametrize("path", ["null\0byte.npy", "long" * 2000])
def test_an_impossible_name_is_an_input_error(path: str) -> None:
    with pytest.raises(InputError):
        check_regular(path)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need a privilege here")
def test_a_symbolic_link_is_followed_and_a_loop_refused(file: RegularFile, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert check_regular(str(tmp_path / "link")) == file.identity
    with pytest.raises(InputError, match="loop: "):
        check_regular(str(tmp_path / "loop"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_an_input_error(file: RegularFile) -> None:
    os.chmod(file.path, 0)
    with pytest.raises(InputError, match=r"dump\.bin: Permission denied"):
        file.read(0, 1)


def test_a_copy_of_a_file_is_another_file(file: RegularFile, tmp_path: Path) -> None:
    shutil.copy2(file.path, tmp_path / "copy.bin")
    assert check_regular(str(tmp_path / "copy.bin")) != file.identity
