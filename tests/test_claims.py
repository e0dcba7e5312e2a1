"""Whose a file is: claimed by its real path, for as long as it is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kldiv_cli.claims import Claims
from kldiv_cli.journal import Journal, open_journal


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def journal() -> Iterator[Journal]:
    with open_journal("j") as journal:
        yield journal


def test_what_is_not_there_needs_no_claim_and_what_is_there_does(journal: Journal) -> None:
    claims = Claims(journal)
    assert claims.cover("a", ["a.npy", "x.h5::/kl"])
    Path("x.h5").touch()
    assert not claims.cover("a", ["a.npy", "x.h5::/kl"])
    claims.make("a", ["x.h5::/kl"])
    assert claims.cover("a", ["a.npy", "x.h5::/kl"])
    assert not claims.cover("b", ["x.h5::/kl"]), "to the files of another pair there is none"
    assert not claims.cover(None, ["x.h5::/kl"])


def test_a_claim_is_to_a_place_however_it_is_written(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = Claims(journal)
    Path("m").mkdir()
    Path("m/a.npy").touch()
    claims.make("a", ["m/../m/a.npy"])
    os.symlink("m", "link")
    assert claims.cover("a", ["link/a.npy", str(Path("m/a.npy").resolve())])
    Path("m/m").mkdir()
    Path("m/m/a.npy").touch()
    monkeypatch.chdir("m")
    assert claims.cover("a", ["a.npy"])
    assert not claims.cover("a", ["m/a.npy"])


def test_a_link_that_somebody_put_in_place_of_a_file_is_not_covered(journal: Journal) -> None:
    claims = Claims(journal)
    claims.make("a", ["a.npy"])
    os.symlink("precious.npy", "a.npy")
    assert not claims.cover("a", ["a.npy"])


def test_claims_add_up_and_those_to_nothing_are_given_up(journal: Journal) -> None:
    claims = Claims(journal)
    Path("a").touch()
    claims.make(None, ["a"])
    claims.make(None, ["b"])
    claims.settle(None, ["a", "b"])
    Path("b").touch()
    assert (claims.cover(None, ["a"]), claims.cover(None, ["b"])) == (True, False)


def test_what_is_known_already_takes_no_line(journal: Journal) -> None:
    claims = Claims(journal)
    Path("a").touch()
    claims.make("x", ["a"])
    size = os.path.getsize("j")
    claims.make("x", ["a"])
    claims.make("y", [])
    claims.settle("x", ["a"])
    claims.settle("y", ["b"])
    assert os.path.getsize("j") == size


def test_what_was_refused_is_given_up_and_what_was_claimed_before_is_not(journal: Journal) -> None:
    claims = Claims(journal)
    Path("old.npy").touch()
    claims.make("a", ["old.npy"])
    new = claims.make("a", ["old.npy", "new.npy"])
    assert new == {str(Path("new.npy").resolve())}
    Path("new.npy").write_text("somebody was quicker")
    claims.settle("a", ["old.npy", "new.npy"], refused=new)
    assert (claims.cover("a", ["old.npy"]), claims.cover("a", ["new.npy"])) == (True, False)
