"""Zarr stores are told from other things, and refused in a line, without Zarr."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kldiv_cli.sources.store_names import is_store, is_url, is_zipped_store

WITHOUT_ZARR = """
import sys
sys.modules["zarr"] = None
from kldiv_cli.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("mark", ["zarr.json", ".zarray", ".zgroup", ".zmetadata"])
def test_a_directory_with_metadata_of_either_version_is_a_store(tmp_path: Path, mark: str) -> None:
    assert not is_store(str(tmp_path))
    (tmp_path / mark).write_text("{}")
    assert is_store(str(tmp_path))
    assert not is_store(str(tmp_path / mark))


def test_a_url_is_a_store_by_its_name() -> None:
    assert is_store("s3://bucket/a.zarr")
    assert is_store("memory://a.zarr/x/y")
    assert not is_store("s3://bucket/a.npy")
    assert not is_url("a.zarr::x")
    assert not is_url("C:\\a.zarr")


def test_an_archive_is_a_store_by_what_lies_at_its_top(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("zarr.json", "{}")
    assert not is_zipped_store(str(tmp_path / "a.npz"))
    assert is_zipped_store(str(tmp_path / "z.zip"))


@pytest.mark.parametrize("command", [["compute", "a.zarr", "a.zarr"], ["inspect", "a.zarr"]])
def test_a_store_without_the_package_is_a_line_that_says_what_to_install(
    tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zarray").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ZARR, *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "kldiv: error: a.zarr: a Zarr store, read by the package zarr 3.1.3 or newer, there is none; "
        "pip install 'kldiv-cli[zarr]'\n"
    )
