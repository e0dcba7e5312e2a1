"""Whether there is a scheduler of Dask at an address, found out before its client is made.

The client waits for ever for what never answers, and doesn't end at once where the answer is no scheduler's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from kldiv_cli.errors import UsageError
from kldiv_cli.sources.requesters import apart
from kldiv_cli.streams import one_line

__all__ = ["check_scheduler"]

_CERTIFICATES: Final = ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")


def check_scheduler(where: str, address: str, patience: float) -> None:
    """Ask what is there.

    Raises
    ------
    UsageError
        Nothing, nothing that answers within `patience` seconds, or something else than a scheduler.
    """
    arguments = _connection_arguments(where, address)
    identity = _run(_asked(where, address, patience, arguments))
    kind = str(identity.get("type")) if isinstance(identity, dict) else "None"
    if kind != "Scheduler":
        raise UsageError(f"{where}: a Dask {kind.lower()}, expected a scheduler{_its_scheduler(identity)}")


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # A notebook runs its cells inside a loop, and a thread has one loop at a time.
    return apart(asyncio.run, coroutine)


def _its_scheduler(identity: Any) -> str:
    """Where a worker's scheduler is, if it says so."""
    address = identity.get("scheduler") if isinstance(identity, dict) else None
    return f"; its own is at {address}" if isinstance(address, str) else ""


def _connection_arguments(where: str, address: str) -> dict[str, Any]:
    """What Dask's configuration says of connections, which must have certificates for some."""
    from distributed.security import Security

    try:
        arguments: dict[str, Any] = Security().get_connection_args("client")
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{where}: the configuration of Dask can't be used: {one_line(error)}") from None
    if address.startswith("tls://") and arguments.get("ssl_context") is None:
        names = ", ".join(f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in _CERTIFICATES)
        raise UsageError(f"{where}: TLS needs certificates, and Dask is configured with none; set {names}")
    return arguments


async def _asked(where: str, address: str, patience: float, arguments: dict[str, Any]) -> Any:
    try:
        return await asyncio.wait_for(_identity(address, patience, arguments), patience)
    except (OSError, ImportError) as error:
        reason = one_line(error) or f"none within {patience:g} s"
        raise UsageError(
            f"{where}: no answer from a Dask scheduler ({reason}); start one with dask scheduler"
        ) from None
    except Exception:  # noqa: BLE001 - whatever the bytes of another protocol come to
        raise UsageError(
            f"{where}: what answers is no Dask scheduler, it doesn't speak its protocol; start one with "
            "dask scheduler"
        ) from None


async def _identity(address: str, patience: float, arguments: dict[str, Any]) -> Any:
    """What something of Dask says that it is."""
    from distributed.comm import connect

    comm = await connect(address, timeout=patience, **arguments)
    try:
        await comm.write({"op": "identity", "reply": True})
        return await comm.read()
    finally:
        comm.abort()
