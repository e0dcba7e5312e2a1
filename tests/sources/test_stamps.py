from __future__ import annotations

import os
from pathlib import Path

import pytest

from kldiv_cli.errors import FormatError, InputError, InputNotFound
from kldiv_cli.sources import stamps
from kldiv_cli.sources.stamps import FileStamp, file_stamp, file_stamps


def test_a_stamp_changes_with_the_size_and_the_time_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(b"123")
    os.utime(file, ns=(5, 7_000_000_100))
    first = file_stamp(str(file))
    assert first == FileStamp(3, 7_000_000_100)
    os.utime(file, ns=(5, 7_000_000_200))
    assert file_stamp(str(file)).mtime_ns == 7_000_000_200
    file.write_bytes(b"1234")
    os.utime(file, ns=(5, 7_000_000_100))
    assert file_stamp(str(file)) == FileStamp(4, 7_000_000_100)


def test_what_can_be_no_input_has_no_stamp(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        file_stamp(str(tmp_path / "missing.npy"))
    with pytest.raises(InputError, match="a directory, expected a regular file"):
        file_stamp(str(tmp_path))
    (tmp_path / "empty.npy").touch()
    with pytest.raises(FormatError, match="empty file"):
        file_stamp(str(tmp_path / "empty.npy"))


def test_many_files_have_a_stamp_each_and_what_is_not_there_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"123")
    names = [str(tmp_path / name) for name in ("a.npy", "missing.npy", "a.npy")]
    assert file_stamps(names) == {names[0]: file_stamp(names[0]), names[1]: None}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Files as a Zarr store has them, all of an old time."""
    top = tmp_path / "a.zarr"
    (top / "c" / "0").mkdir(parents=True)
    (top / "zarr.json").write_text("{}")
    for name in ("0", "1"):
        (top / "c" / "0" / name).write_bytes(b"123")
    for path in (*top.rglob("*"), top):
        os.utime(path, ns=(5, 7_000_000_100))
    return top


def test_the_stamp_of_a_store_is_its_bytes_and_the_newest_time_in_it(store: Path) -> None:
    assert file_stamp(str(store)) == FileStamp(8, 7_000_000_100)
    os.utime(store / "c" / "0" / "1", ns=(5, 7_000_000_200))
    assert file_stamp(str(store)) == FileStamp(8, 7_000_000_200)


def test_a_chunk_that_is_gone_or_was_replaced_by_an_older_one_is_told(store: Path) -> None:
    old = file_stamp(str(store))
    (store / "older").write_bytes(b"456")
    os.utime(store / "older", ns=(5, 7_000_000_000))
    (store / "older").rename(store / "c" / "0" / "1")
    replaced = file_stamp(str(store))
    assert replaced.size == old.size
    assert replaced != old
    (store / "c" / "0" / "1").unlink()
    assert file_stamp(str(store)) not in (old, replaced)


def test_of_a_store_with_links_to_itself_every_file_counts_once(store: Path) -> None:
    size = file_stamp(str(store)).size
    for name in ("loop", "again"):
        (store / "c" / name).symlink_to(store / "c", target_is_directory=True)
    assert file_stamp(str(store)).size == size


def test_what_many_addresses_name_is_looked_at_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = store.parent / "a.npy"
    single.write_bytes(b"123")
    looked_at: list[str] = []
    scandir, check = os.scandir, stamps.check_regular
    monkeypatch.setattr(os, "scandir", lambda path: looked_at.append(path) or scandir(path))
    monkeypatch.setattr(stamps, "check_regular", lambda path: looked_at.append(path) or check(path))
    file_stamps([str(store), str(single)])
    once = looked_at.copy()
    looked_at.clear()
    file_stamps([str(store), str(single)] * 20)
    assert looked_at == once
    assert {str(store), str(single)} < set(once)
