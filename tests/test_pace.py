from __future__ import annotations

from kldiv_cli.pace import Pace


def test_the_first_bundles_have_one_task() -> None:
    assert [Pace(0.03, 64).bundle() for _ in range(3)] == [1, 1, 1]


def test_a_bundle_takes_as_long_as_it_should() -> None:
    pace = Pace(0.1, 64)
    pace.learn(4, 0.04)
    assert pace.bundle() == 10


def test_slow_tasks_go_alone_and_quick_ones_in_bundles_of_a_limit() -> None:
    slow, quick = Pace(0.03, 64), Pace(0.03, 64)
    slow.learn(1, 1.0)
    quick.learn(1, 0.0)
    assert (slow.bundle(), quick.bundle()) == (1, 64)


def test_what_a_start_took_is_soon_forgotten_and_a_halt_soon_seen() -> None:
    pace = Pace(0.03, 64)
    pace.learn(1, 0.2)
    assert pace.bundle() == 1
    for _ in range(12):
        pace.learn(1, 0.0004)
    assert pace.bundle() > 50
    pace.learn(64, 64.0)
    assert pace.bundle() == 1


def test_fewer_are_wanted_of_large_results() -> None:
    pace = Pace(0.03, 64)
    pace.learn(1, 0.0, most=5)
    assert pace.bundle() == 5
    pace.learn(1, 0.0, most=0)
    assert pace.bundle() == 1
    pace.learn(1, 0.0)
    assert pace.bundle() == 64
