"""What one writes with h5py and PyTorch: everything in memory, float32."""

from __future__ import annotations

import sys

import h5py
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

with h5py.File(sys.argv[1]) as file:
    x, y = (torch.from_numpy(file[name][:]) for name in ("logits", "probs"))
print("batchmean", F.kl_div(F.log_softmax(x, -1), y, reduction="batchmean").item())
