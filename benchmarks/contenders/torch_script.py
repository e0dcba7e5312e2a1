"""What one writes with PyTorch: everything in memory, float32."""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

x = torch.from_numpy(np.load(sys.argv[1]))
y = torch.from_numpy(np.load(sys.argv[2]))
print("batchmean", F.kl_div(F.log_softmax(x, -1), y, reduction="batchmean").item())
