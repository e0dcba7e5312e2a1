"""What was probably meant: the one name that is most like it, else all of them, in bounded time."""

from __future__ import annotations

import pytest

from kldiv_cli.spelling import mistaken


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("los", "; did you mean 'loss'?"),
        ("nonsense", ", expected one of axis, loss, losses"),
        ("k" * 10_000_000, ", expected one of axis, loss, losses"),
    ],
)
def test_the_likest_name_is_asked_for_or_all_are_listed(name: str, said: str) -> None:
    assert mistaken(name, ["losses", "loss", "axis"]) == said


def test_names_are_shown_on_one_line_and_not_without_end() -> None:
    assert mistaken("a\nc", ["a\nb"]) == "; did you mean 'a\\nb'?"
    listed = mistaken("x", [f"name{k:03}" for k in range(60)])
    assert listed.endswith("name048, name049, …")
