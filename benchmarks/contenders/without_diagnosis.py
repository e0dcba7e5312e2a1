"""kldiv as it would be without looking for misuse: what the diagnosis costs is the difference.

What predictions and targets add up to is not computed, they are not compared with each other, and
no rows are sampled.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from kldiv_cli import engine, evaluation, pieces, probes
from kldiv_cli.__main__ import main
from kldiv_cli.segments import count_segments


def unknown(values: Any, *_: object) -> Any:
    return np.full((len(values), count_segments(values.shape[1])), np.nan)


for name in ("mass_of_probs", "mass_of_log_probs", "mass_of_logits"):
    setattr(pieces, name, unknown)
engine.differ = lambda rows: True
probes.alignment_of = evaluation.alignment_of = lambda job: None
evaluation.find = lambda evidence: ()
sys.exit(main(sys.argv[1:]))
