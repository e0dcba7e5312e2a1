"""The baseline of memory: a process that imports NumPy and ends."""

from __future__ import annotations

import numpy as np

assert np
