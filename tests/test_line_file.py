"""What `tests/test_journal.py` tests of a journal, for any lines: how much of a file is read at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from kldiv_cli.errors import OutputError
from kldiv_cli.line_file import Line, open_line_file, read_line_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines"


def lines(path: Path) -> list[Line]:
    file = read_line_file(path)
    try:
        return list(file.lines())
    finally:
        file.close()


def test_every_line_is_told_with_its_place_and_whether_it_ends(path: Path) -> None:
    path.write_bytes(b"a\n\nlong")
    assert lines(path) == [Line(0, b"a\n", True), Line(2, b"\n", True), Line(3, b"long", False)]


@pytest.mark.parametrize("longest", [4, 5, 6, 7])
def test_of_a_longer_line_only_the_place_is_told(
    path: Path, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kldiv_cli.line_file._LONGEST", longest)
    monkeypatch.setattr("kldiv_cli.line_file._CHUNK", 3)
    path.write_bytes(b"a\n12345\nb\n12345")
    first, middle, behind, last = lines(path)
    assert (first, behind) == (Line(0, b"a\n", True), Line(8, b"b\n", True))
    assert middle == Line(2, b"12345\n" if longest >= 6 else b"", True)
    assert last == Line(10, b"12345" if longest >= 6 else b"", False)


def test_a_file_that_is_one_endless_line_takes_little_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kldiv_cli.line_file._LONGEST", 1 << 20)
    with open(path, "wb") as file:
        file.truncate(100 << 20)
    tracemalloc.start()
    try:
        assert lines(path) == [Line(0, b"", False)]
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_line_of_many_megabytes_is_read_whole(path: Path) -> None:
    file = open_line_file(path)
    line = b"x" * (10 << 20) + b"\n"
    assert file.append(line) == 0
    file.close()
    assert lines(path) == [Line(0, line, True)]


def test_what_is_only_read_takes_no_lock_and_no_lines(path: Path) -> None:
    with pytest.raises(OutputError, match=r"lines: No such file .*, expected a file that can be read; "):
        read_line_file(path)
    writer = open_line_file(path)
    reader = read_line_file(path)
    assert not reader.locked
    with pytest.raises(OutputError):
        reader.append(b"a\n")
    assert writer.append(b"b\n") == 0
    assert reader.read(0, 9) == b"b\n"
    reader.close()
    writer.close()
