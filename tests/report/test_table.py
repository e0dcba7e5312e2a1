"""Rich tables, on a terminal of any width and where there is none."""

from __future__ import annotations

import io
import re
import textwrap
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli.evaluation import Evaluation, Input
from kldiv_cli.map_view import MapView
from kldiv_cli.reductions import divisors_of, exact_sum, reduce_sum
from kldiv_cli.report.table import render_table
from kldiv_cli.spec import QUANTILES, Spec
from kldiv_cli.statistics import Statistics, percentile_name
from kldiv_cli.target_split import Group, TargetSplit

STATISTICS = Statistics(
    of="distributions",
    count=2,
    mean=0.75,
    standard_error=0.5,
    minimum=0.25,
    maximum=1.25,
    percentiles={percentile_name(quantile): 0.25 + quantile for quantile in QUANTILES},
    exact=True,
)

ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *, colour: bool = False) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")


def evaluation(loss: str = "kl", name: str = "q.npy", **changes: Any) -> Evaluation:
    shape = (2, 4)
    fields: dict[str, Any] = {
        "loss": loss,
        "predictions": Input(address=name, shape=shape, dtype="float32", space="log-probs"),
        "targets": Input(address="p.npy", shape=shape, dtype="float64", space="probs"),
        "shape": shape,
        "axis": 1,
        "settings": Spec(),
        "scalars": reduce_sum(1 / 3, divisors_of(shape, 1), batchmean=loss == "kl"),
        "statistics": STATISTICS,
    }
    return Evaluation(**{**fields, **changes})


def whole(values: npt.ArrayLike, first: int = 0) -> MapView:
    array = np.asarray(values, np.float64)
    return MapView(
        shape=(array.shape[0], first + array.shape[1]),
        selection=(slice(0, array.shape[0]), slice(first, first + array.shape[1])),
        indices=(tuple(range(array.shape[0])), tuple(range(first, first + array.shape[1]))),
        values=array,
    )


def shown(table: str) -> str:
    """Without escape codes and the blanks that fill a line."""
    return "\n".join(line.rstrip() for line in ESCAPE.sub("", table).splitlines()).strip("\n")


def text(expected: str) -> str:
    return textwrap.dedent(expected).strip("\n")


def styles(table: str) -> dict[str, str]:
    """The escape code before each word."""
    return {word: code for code, word in re.findall(r"\x1b\[([0-9;]+)m *([^\s\x1b]+)", table)}


def test_scalars_are_a_table_of_six_digits() -> None:
    assert shown(render_table([evaluation()], None, None, None)) == text("""
        KL(p.npy ‖ q.npy), in nats
        predictions  q.npy  (2, 4)  float32  log-probs
        targets      p.npy  (2, 4)  float64  probs over axis 1 (4)

         reduction          kl   divisor   of
         ───────────────────────────────────────────────
         sum          0.333333         1
         mean        0.0416667         8   elements
         batchmean    0.166667         2   batch
         distmean     0.166667         2   distributions


         statistic           kl   of
         ────────────────────────────────────────
         mean              0.75   2 distributions
         standard_error     0.5
         minimum           0.25
         p0.1             0.251
         p1                0.26
         p5                 0.3
         p10               0.35
         p50               0.75
         p90               1.15
         p95                1.2
         p99               1.24
         p99.9            1.249
         maximum           1.25
        """)


def test_two_losses_and_their_split_by_target_are_shown() -> None:
    split = TargetSplit(one=Group(2, exact_sum(np.array([0.5, 1.0]))))
    both = [evaluation(by_target=split), evaluation("bce", by_target=split)]
    table = shown(render_table(both, "sum", None, None))
    assert table.splitlines()[0] == "KL(p.npy ‖ q.npy) and BCE(q.npy, p.npy), in nats"
    assert " sum         0.333333   0.333333         1" in table.splitlines()
    assert [line.split() for line in table.splitlines()[-3:]] == [
        ["1", "2", "0.75", "0.75"],
        ["0", "0", "–", "–"],
        ["between", "0", "–", "–"],
    ]


def test_a_precision_is_kept_to() -> None:
    table = shown(render_table([evaluation()], "sum", None, 12))
    assert "0.333333333333 " in table


def test_a_map_is_a_table_of_four_digits() -> None:
    view = whole([[0.123456, -2.0, np.nan], [np.inf, 1e-07, 3.0]])
    assert shown(render_table([evaluation()], "none", view, None)) == text("""
        KL(p.npy ‖ q.npy), in nats
        predictions  q.npy  (2, 4)  float32  log-probs
        targets      p.npy  (2, 4)  float64  probs over axis 1 (4)

         dim 0       0      1    2
         ─────────────────────────
             0  0.1235     -2  nan
             1     inf  1e-07    3
        """)


@pytest.mark.parametrize("name", ["[red]x[/red].npy", "[/].npy", ":smile:.npy", "[link=x]y.npy"])
def test_a_name_is_text_and_never_markup(name: str) -> None:
    assert shown(render_table([evaluation(name=name)], None, None, None)).count(name) == 2


def test_control_characters_of_a_name_are_escaped() -> None:
    table = render_table([evaluation(name="a\nb\x1b[31m.npy")], None, None, None)
    assert "\x1b" not in table
    assert table.count(r"a\nb\x1b[31m.npy") == 2


def test_without_a_terminal_nothing_is_cut_and_nothing_coloured() -> None:
    name = "x" * 300 + ".npy"
    table = render_table([evaluation(name=name)], "none", whole(np.full((2, 200), 0.12345)), None)
    assert "\x1b" not in table
    assert "…" not in table
    assert table.count(name) == 2
    assert table.count("0.1235") == 400


# On a terminal


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_map_is_no_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    on_terminal(monkeypatch, columns)
    table = shown(render_table([evaluation()], "none", whole(np.full((2, 60), 0.12345)), None))
    assert max(map(len, table.splitlines())) <= columns
    header = next(line.split() for line in table.splitlines() if line.startswith(" dim 0"))
    assert (header[2], header[-1]) == ("0", "59")
    assert header.count("…") == 1
    rows = [line.split() for line in table.splitlines() if line.strip()[:1].isdigit()]
    assert {cell for row in rows for cell in row[1:]} == {"0.1235", "…"}
    assert "--full shows all" in table


@pytest.mark.parametrize(
    ("values", "first"),
    [
        pytest.param(np.zeros((2, 40)), 1_000_000, id="indices wider than values"),
        pytest.param(np.where(np.arange(20_000) < 19_990, 0, -1.234e-05).reshape(500, 40), 0, id="late"),
    ],
)
def test_no_index_and_no_number_of_a_map_is_ever_cut_short(
    monkeypatch: pytest.MonkeyPatch, values: npt.NDArray[np.float64], first: int
) -> None:
    on_terminal(monkeypatch, 80)
    table = shown(render_table([evaluation()], "none", whole(values, first), None))
    assert max(map(len, table.splitlines())) <= 80
    cut_short = re.findall(r"\S+…\S*|\S*…\S+", table)
    assert cut_short == []


@pytest.mark.parametrize("columns", [40, 80])
def test_no_scalar_is_broken_over_two_lines(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    on_terminal(monkeypatch, columns)
    table = render_table([evaluation()], None, None, None)
    for number in ("0.333333", "0.0416667", "0.166667"):
        assert number in table


@pytest.mark.parametrize("columns", [40, 80])
def test_a_long_name_is_not_cut_short(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    on_terminal(monkeypatch, columns)
    name = "/data/runs/2024-11-05/" + "checkpoint-final-" * 4 + "logits.npy"
    table = render_table([evaluation(name=name)], None, None, None)
    assert "…" not in table
    assert "".join(table.split()).count(name) >= 1


def test_values_are_coloured_by_their_size_from_grey_to_red(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch, 120, colour=True)
    view = whole([[0.1, 21.0, 41.0, 61.0, 81.0, 119.0, 120.0]] * 2)
    code = styles(render_table([evaluation()], "none", view, None))
    ramp = [code[number] for number in ("0.1", "21", "41", "61", "81", "120")]
    assert ramp == [f"38;5;{colour}" for colour in (240, 250, 229, 220, 208, 196)]
    assert code["119"] == code["120"]


def test_values_below_zero_are_blue_and_nan_and_infinities_stand_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_terminal(monkeypatch, 120, colour=True)
    view = whole([[-12.0, -0.5, 12.5, np.nan, np.inf, -np.inf]] * 2)
    code = styles(render_table([evaluation()], "none", view, None))
    assert code["-12"] == "38;5;21"
    assert code["-0.5"] == "38;5;240"
    assert code["12.5"] == "38;5;196"
    assert {code[word] for word in ("nan", "inf", "-inf")} == {"1;35"}


def test_a_map_of_zeros_is_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch, 120, colour=True)
    table = render_table([evaluation()], "none", whole(np.zeros((2, 3))), None)
    assert "38;5;240" in table
    assert "38;5;196" not in table


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
    ],
)
def test_a_terminal_is_coloured_unless_the_environment_says_no(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    on_terminal(monkeypatch, 80, colour=True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in render_table([evaluation()], None, None, None)) is coloured


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_a_pipe_is_coloured_only_by_force(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in render_table([evaluation()], None, None, None)) is coloured


def test_colours_change_no_character_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    view = whole([[0.0, 2.0], [np.nan, -1.0]])
    plain = render_table([evaluation()], "none", view, None)
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = render_table([evaluation()], "none", view, None)
    assert coloured != plain
    assert shown(coloured) == shown(plain)
