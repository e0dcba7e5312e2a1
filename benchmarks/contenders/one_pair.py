"""What one writes to compare a single pair in a loop of the shell: NumPy alone, one line printed."""

from __future__ import annotations

import sys

import numpy as np

x, y = (np.load(path).astype(np.float64) for path in sys.argv[1:])
x -= x.max(-1, keepdims=True)
log_q = x - np.log(np.exp(x).sum(-1, keepdims=True))
loss = np.where(y > 0, y * (np.log(np.where(y > 0, y, 1)) - log_q), 0)
print(sys.argv[1], loss.sum() / len(x))
