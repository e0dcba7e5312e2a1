"""Losses on stored arrays: KL divergence and binary cross-entropy, exactly as PyTorch defines them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kldiv_cli.api import compare, evaluate
    from kldiv_cli.comparison import Comparison
    from kldiv_cli.errors import KldivError
    from kldiv_cli.evaluation import Evaluation
    from kldiv_cli.functional import (
        binary_cross_entropy,
        binary_cross_entropy_with_logits,
        kl_div,
        log_softmax,
    )
    from kldiv_cli.gate import Checked, check

__version__ = "0.1.0"

__all__ = [
    "Checked",
    "Comparison",
    "Evaluation",
    "KldivError",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "check",
    "compare",
    "evaluate",
    "kl_div",
    "log_softmax",
]

_HOME = {
    "Checked": "gate",
    "Comparison": "comparison",
    "Evaluation": "evaluation",
    "KldivError": "errors",
    "binary_cross_entropy": "functional",
    "binary_cross_entropy_with_logits": "functional",
    "check": "gate",
    "compare": "api",
    "evaluate": "api",
    "kl_div": "functional",
    "log_softmax": "functional",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that ``kldiv --version`` imports none of it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
