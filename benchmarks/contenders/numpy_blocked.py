"""What one writes with NumPy for files larger than memory: mapped, a block of rows at a time, float64."""

from __future__ import annotations

import sys

import numpy as np

ROWS = 1024

x = np.load(sys.argv[1], mmap_mode="r")
y = np.load(sys.argv[2], mmap_mode="r")
total = 0.0
for start in range(0, len(x), ROWS):
    logits = x[start : start + ROWS].astype(np.float64)
    targets = y[start : start + ROWS].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    log_targets = np.log(targets, where=targets > 0, out=np.zeros_like(targets))
    total += (targets * (log_targets - log_probs)).sum()
print("batchmean", total / len(x))
