"""Plain text, Markdown, CSV and JSON, word for word."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from typing import Any

import numpy as np
import pytest

from kldiv_cli.estimates import share_of
from kldiv_cli.evaluation import Evaluation, Input
from kldiv_cli.map_view import MapView
from kldiv_cli.reductions import divisors_of, exact_sum, reduce_sum
from kldiv_cli.report.render import render
from kldiv_cli.report.text import render_csv, render_json, render_jsonl, render_md, render_plain
from kldiv_cli.spec import QUANTILES, Spec
from kldiv_cli.statistics import Statistics, percentile_name
from kldiv_cli.target_split import Group, TargetSplit

SPLIT = TargetSplit(one=Group(2, exact_sum(np.array([0.5, 1.0]))), zero=Group(6, exact_sum(np.zeros(6))))

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


def evaluation(loss: str = "kl", total: float = 1.5, name: str = "q.npy", **changes: Any) -> Evaluation:
    shape = (2, 4)
    fields: dict[str, Any] = {
        "loss": loss,
        "predictions": Input(address=name, shape=shape, dtype="float32", space="log-probs"),
        "targets": Input(address="p.h5::/probs", shape=shape, dtype="float64", space="probs"),
        "shape": shape,
        "axis": 1,
        "settings": Spec(),
        "scalars": reduce_sum(total, divisors_of(shape, 1), batchmean=loss == "kl"),
        "statistics": STATISTICS,
    }
    return Evaluation(**{**fields, **changes})


def matrix(*, cut: bool = False) -> MapView:
    """Two rows of four, or of them the first and the last column."""
    values = np.array([[0.25, -0.0, np.inf, 1e-05], [0.1, np.nan, -np.inf, 3.0]])
    return MapView(
        shape=(2, 4),
        selection=(slice(0, 2), slice(0, 4)),
        indices=((0, 1), (0, 3) if cut else (0, 1, 2, 3)),
        values=values[:, [0, 3]] if cut else values,
    )


def text(expected: str) -> str:
    return textwrap.dedent(expected).lstrip("\n")


def rows(written: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written)))


# Plain


def test_plain_is_aligned_text_with_nothing_cut() -> None:
    assert render_plain([evaluation()], None, None, None) == text("""
        KL(p.h5::/probs ‖ q.npy), in nats
        predictions  q.npy         (2, 4)  float32  log-probs
        targets      p.h5::/probs  (2, 4)  float64  probs over axis 1 (4)

        reduction      kl  divisor  of
        sum           1.5        1
        mean       0.1875        8  elements
        batchmean    0.75        2  batch
        distmean     0.75        2  distributions

        statistic          kl  of
        mean             0.75  2 distributions
        standard_error    0.5
        minimum          0.25
        p0.1            0.251
        p1               0.26
        p5                0.3
        p10              0.35
        p50              0.75
        p90              1.15
        p95               1.2
        p99              1.24
        p99.9           1.249
        maximum          1.25
        """)


def test_plain_shows_two_losses_side_by_side_and_the_split_by_target() -> None:
    of_elements = STATISTICS._replace(of="elements", count=8, mean=0.25, percentiles={"p50": 0.125})
    both = [
        evaluation(by_target=SPLIT, statistics=STATISTICS._replace(percentiles={"p50": 0.75})),
        evaluation("bce", 2.0, by_target=SPLIT, statistics=of_elements),
    ]
    assert render_plain(both, None, None, None) == text("""
        KL(p.h5::/probs ‖ q.npy) and BCE(q.npy, p.h5::/probs), in nats
        predictions  q.npy         (2, 4)  float32  log-probs
        targets      p.h5::/probs  (2, 4)  float64  probs over axis 1 (4)

        reduction      kl   bce  divisor  of
        sum           1.5   2.0        1
        mean       0.1875  0.25        8  elements
        batchmean    0.75     –        2  batch
        distmean     0.75   1.0        2  distributions

        statistic         kl    bce  of
        mean            0.75   0.25  2 distributions, 8 elements
        standard_error   0.5    0.5
        minimum         0.25   0.25
        p50             0.75  0.125
        maximum         1.25   1.25

        target   count  kl mean  bce mean
        1            2     0.75      0.75
        0            6      0.0       0.0
        between      0        –         –
        """)


@pytest.mark.parametrize("reduction", [None, "distmean", "sum"])
def test_plain_and_markdown_show_how_often_top_classes_agree_whatever_the_reduction(reduction: Any) -> None:
    both = [evaluation(top1=share_of(1, 2)), evaluation("bce")]
    assert render_plain(both, reduction, None, None).endswith(
        "\n\nagreement  count  share  standard_error\ntop1           1    0.5             0.5\n"
    )
    shown = render_md([evaluation(top1=share_of(2, 3))], reduction, None, 3)
    assert shown.endswith(
        r"| agreement | count | share | standard\_error |"
        "\n| --- | ---: | ---: | ---: |\n"
        "| top1 | 2 | 0.667 | 0.333 |\n"
    )


def test_plain_shows_one_reduction_with_its_precision() -> None:
    assert render_plain([evaluation(total=1 / 3)], "distmean", None, 3) == text("""
        KL(p.h5::/probs ‖ q.npy), in nats
        predictions  q.npy         (2, 4)  float32  log-probs
        targets      p.h5::/probs  (2, 4)  float64  probs over axis 1 (4)

        reduction     kl  divisor  of
        distmean   0.167        2  distributions
        """)


def test_plain_shows_a_map_with_nan_and_infinities() -> None:
    assert render_plain([evaluation()], "none", matrix(), None) == text("""
        KL(p.h5::/probs ‖ q.npy), in nats
        predictions  q.npy         (2, 4)  float32  log-probs
        targets      p.h5::/probs  (2, 4)  float64  probs over axis 1 (4)

        dim 0     0     1     2      3
            0  0.25  -0.0   inf  1e-05
            1   0.1   nan  -inf    3.0
        """)


def test_plain_shows_the_gap_of_a_cut_map() -> None:
    shown = render_plain([evaluation()], "none", matrix(cut=True), None)
    assert shown.endswith("\n\ndim 0     0  …      3\n    0  0.25  …  1e-05\n    1   0.1  …    3.0\n")


def test_plain_has_no_trailing_blanks_and_one_newline_at_its_end() -> None:
    shown = render_plain([evaluation(by_target=SPLIT)], None, None, None)
    assert all(line == line.rstrip() for line in shown.splitlines())
    assert shown.endswith("\n")
    assert not shown.endswith("\n\n")


# Markdown


def test_markdown_has_a_heading_a_list_and_tables() -> None:
    assert render_md([evaluation(by_target=SPLIT)], None, None, 3) == text(r"""
        **KL(p.h5::/probs ‖ q.npy), in nats**

        - predictions: q.npy (2, 4) float32 log-probs
        - targets: p.h5::/probs (2, 4) float64 probs over axis 1 (4)

        | reduction | kl | divisor | of |
        | --- | ---: | ---: | --- |
        | sum | 1.5 | 1 |  |
        | mean | 0.188 | 8 | elements |
        | batchmean | 0.75 | 2 | batch |
        | distmean | 0.75 | 2 | distributions |

        | statistic | kl | of |
        | --- | ---: | --- |
        | mean | 0.75 | 2 distributions |
        | standard\_error | 0.5 |  |
        | minimum | 0.25 |  |
        | p0.1 | 0.251 |  |
        | p1 | 0.26 |  |
        | p5 | 0.3 |  |
        | p10 | 0.35 |  |
        | p50 | 0.75 |  |
        | p90 | 1.15 |  |
        | p95 | 1.2 |  |
        | p99 | 1.24 |  |
        | p99.9 | 1.25 |  |
        | maximum | 1.25 |  |

        | target | count | kl mean |
        | --- | ---: | ---: |
        | 1 | 2 | 0.75 |
        | 0 | 6 | 0 |
        | between | 0 | – |
        """)


def test_markdown_shows_a_map_with_its_gap() -> None:
    shown = render_md([evaluation()], "none", matrix(cut=True), None)
    assert shown.endswith(
        "\n| dim 0 | 0 | … | 3 |\n"
        + text("""
        | ---: | ---: | ---: | ---: |
        | 0 | 0.25 | … | 1e-05 |
        | 1 | 0.1 | … | 3.0 |
        """)
    )


def test_markdown_takes_a_name_as_text() -> None:
    shown = render_md([evaluation(name="[a](b)|`c`_*<i>\n.npy")], None, None, None)
    assert r"\[a\](b)\|\`c\`\_\*\<i\>\\n.npy" in shown
    assert shown.count("\n- ") == 2


# CSV


def test_csv_has_a_row_for_each_loss() -> None:
    header, kl, bce = render_csv([evaluation(), evaluation("bce", 2.0)], None, None, None).splitlines()
    assert header == (
        "loss,predictions,targets,shape,axis,elements,distributions,batch,sum,mean,batchmean,distmean,"
        "direction,predictions.dtype,predictions.space,targets.dtype,targets.space,"
        "statistics.of,statistics.count,statistics.mean,statistics.standard_error,statistics.minimum,"
        "statistics.p0.1,statistics.p1,statistics.p5,statistics.p10,statistics.p50,statistics.p90,"
        "statistics.p95,statistics.p99,statistics.p99.9,statistics.maximum,statistics.exact"
    )
    computed = (
        "float32,log-probs,float64,probs,"
        "distributions,2,0.75,0.5,0.25,0.251,0.26,0.3,0.35,0.75,1.15,1.2,1.24,1.249,1.25,true"
    )
    assert kl == (
        f"kl,q.npy,p.h5::/probs,2x4,1,8,2,2,1.5,0.1875,0.75,0.75,KL(targets ‖ predictions),{computed}"
    )
    assert bce == (f'bce,q.npy,p.h5::/probs,2x4,1,8,2,2,2.0,0.25,,1.0,"BCE(predictions, targets)",{computed}')


def test_csv_of_one_reduction_has_one_column_of_it() -> None:
    (row,) = rows(render_csv([evaluation()], "distmean", None, None))
    assert row["distmean"] == "0.75"
    assert row.keys().isdisjoint({"sum", "mean", "batchmean"})


def test_csv_of_a_map_has_a_row_for_each_element() -> None:
    shown = render_csv([evaluation()], "none", matrix(), None)
    assert shown.splitlines()[:3] == ["dim 0,dim 1,value", "0,0,0.25", "0,1,-0.0"]
    assert len(rows(shown)) == 8
    assert [row["value"] for row in rows(shown)][-3:] == ["nan", "-inf", "3.0"]


def test_csv_of_a_cut_map_tells_the_true_indices() -> None:
    shown = rows(render_csv([evaluation()], "none", matrix(cut=True), None))
    assert [(row["dim 0"], row["dim 1"]) for row in shown] == [
        ("0", "0"),
        ("0", "3"),
        ("1", "0"),
        ("1", "3"),
    ]


def test_csv_quotes_a_name_with_a_comma_and_a_quote() -> None:
    (row,) = rows(render_csv([evaluation(name='a,"b".npy')], None, None, None))
    assert row["predictions"] == 'a,"b".npy'


def test_csv_escapes_control_characters_of_a_name() -> None:
    shown = render_csv([evaluation(name="a\nb\x1b[31m.npy")], None, None, None)
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2


def test_csv_has_columns_for_the_top_class_that_a_loss_without_them_leaves_empty() -> None:
    kl, bce = rows(render_csv([evaluation(top1=share_of(2, 3)), evaluation("bce")], None, None, 3))
    names = ("top1.count", "top1.share", "top1.standard_error")
    assert [kl[name] for name in names] == ["2", "0.667", "0.333"]
    assert [bce[name] for name in names] == ["", "", ""]
    assert "top1.count" not in rows(render_csv([evaluation()], None, None, None))[0]


def test_csv_has_the_split_by_target() -> None:
    shown = render_csv([evaluation(by_target=SPLIT, total=40.0)], None, None, None)
    (row,) = rows(shown)
    assert "0.75" in row.values()


def test_csv_writes_nan_and_infinities_as_they_read_back() -> None:
    (row,) = rows(render_csv([evaluation(total=math.inf)], None, None, None))
    assert float(row["sum"]) == math.inf


# JSON


def test_json_of_one_loss_is_a_record_and_of_two_a_list() -> None:
    assert json.loads(render_json([evaluation()], None, None))["loss"] == "kl"
    both = json.loads(render_json([evaluation(), evaluation("bce")], None, None))
    assert [record["loss"] for record in both] == ["kl", "bce"]


def test_json_is_laid_out_for_reading_and_ends_in_a_newline() -> None:
    shown = render_json([evaluation()], None, None)
    assert shown.startswith('{\n  "schema": "kldiv/1",\n  "loss": "kl",\n')
    assert shown.endswith("\n}\n")


def test_jsonl_is_the_same_records_one_a_line() -> None:
    both = [evaluation(), evaluation("bce")]
    lines = render_jsonl(both, None, None).splitlines()
    assert [json.loads(line) for line in lines] == json.loads(render_json(both, None, None))


def test_json_has_the_map_beside_every_scalar() -> None:
    record = json.loads(render_json([evaluation()], "none", matrix(cut=True)))
    assert record["map"] == {
        "shape": [2, 4],
        "cut": True,
        "indices": [[0, 1], [0, 3]],
        "values": [[0.25, 1e-05], [0.1, 3.0]],
    }
    assert record["sum"] == 1.5


def test_json_carries_a_name_of_any_characters_through_any_encoding() -> None:
    name = "é日😀\x9b\u202e.npy"
    shown = render_json([evaluation(name=name)], None, None)
    encoded = shown.encode("ascii", errors="backslashreplace")
    assert json.loads(encoded)["predictions"]["address"] == name


# All of them


@pytest.mark.parametrize("format", ["plain", "md", "csv", "json", "jsonl", "table"])
def test_every_format_shows_the_same_values(format: Any) -> None:
    shown = render([evaluation()], format)
    assert shown.endswith("\n")
    for value in ("1.5", "0.1875", "0.75"):
        assert value in shown


@pytest.mark.parametrize("format", ["plain", "md", "csv", "json", "jsonl"])
def test_every_text_format_writes_numbers_that_read_back(format: Any) -> None:
    shown = render([evaluation(total=0.1 + 0.2)], format)
    assert "0.30000000000000004" in shown
