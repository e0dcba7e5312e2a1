from __future__ import annotations

import pytest

from kldiv_cli.streams import printable, say


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 字.npy", "plain é 字.npy"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202e", r"\u202e"),
    ],
)
def test_what_would_move_a_terminal_is_shown_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_line_goes_to_stderr_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("a line")
    assert capsys.readouterr() == ("", "a line\n")


def test_without_stderr_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    say("lost")
