"""Files and objects by one name, and what is said where the library for objects is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kldiv_cli.errors import OutputError, UsageError
from kldiv_cli.sinks import check_output
from kldiv_cli.sources.files import open_file
from kldiv_cli.sources.regular import RegularFile
from kldiv_cli.text_sinks import check_output_text


def test_a_path_is_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    assert isinstance(open_file(str(tmp_path / "x")), RegularFile)


@pytest.mark.parametrize(
    ("address", "extra"),
    [
        ("s3://b/k.npy", "s3"),
        ("gs://b/k.npy", "gs"),
        ("gcs://b/k.npy", "gs"),
        ("https://h/k.npy?s=1", "http"),
    ],
)
def test_without_obstore_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError) as raised:
        open_file(address)
    shown = address.partition("?")[0]
    assert str(raised.value) == f"{shown}: needs obstore; install it with pip install 'kldiv-cli[{extra}]'"


def test_local_files_are_read_without_obstore(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    script = (
        "import sys; from kldiv_cli import evaluate; evaluate('x.npy', 'x.npy', log_softmax=1);"
        "print(sorted({'obstore', 'botocore', 'kldiv_cli.sources.remote'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize("address", ["s3://b/map.npy", "https://me:pw@h/map.h5?s=1", "ftp://h/map.npy"])
def test_an_output_is_no_url(address: str) -> None:
    with pytest.raises(
        OutputError, match=r"^output \w+://[bh]/map\.\w+\S*: a URL, expected a file"
    ) as raised:
        check_output(address, (), force=True)
    assert "pw" not in str(raised.value)
    with pytest.raises(OutputError, match=r"^--junit \w+://[bh]/map\S*: a URL, expected a file"):
        check_output_text("--junit", address, ())
