"""Print, as JSON, what this interpreter computes with: versions, and what NumPy found in the processor."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("kldiv-cli", "numpy", "h5py", "typer", "rich", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def simd() -> dict[str, Any]:
    """AVX-512 or not, and the instructions that NumPy's exp and log run on: they decide the speed."""
    from numpy._core._multiarray_umath import __cpu_features__
    from numpy.lib.introspect import opt_func_info

    info = opt_func_info(func_name="^(exp|log)$", signature="float64")
    return {
        "avx512": any(__cpu_features__.get(name, False) for name in ("X86_V4", "AVX512_SKX")),
        "exp_log": {name: [kind["current"] for kind in kinds.values()] for name, kinds in info.items()},
        "found": [name for name, found in __cpu_features__.items() if found],
    }


if __name__ == "__main__":
    print(json.dumps({"versions": versions(), "numpy_simd": simd()}))
