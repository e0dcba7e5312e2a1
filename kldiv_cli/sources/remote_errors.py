"""What went wrong with a request, on one line and without what is secret in its address."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from kldiv_cli.errors import InputChanged, InputError, InputNotFound
from kldiv_cli.sources.arrival import seen_here

__all__ = ["RequestFault", "faults_explained", "panics_told"]

_STATUS: Final = re.compile(r"status code: (\d{3})([A-Za-z -]*)")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
"""What S3 and GCS say in the body, such as ExpiredToken."""
_CAUSES: Final = (
    (re.compile(r"Connection refused|ConnectionRefused"), "connection refused"),
    (re.compile(r"dns error|failed to lookup"), "no such host"),
    (re.compile(r"[Cc]ertificate|InvalidCert|UnknownIssuer"), "its certificate is not trusted"),
    (re.compile(r"TimedOut|timed out|deadline"), "it took too long to answer"),
    (re.compile(r"kind: Connect"), "no connection"),
)
_PROVIDER: Final = re.compile(r"credential provider: (.*)")
_URLS: Final = re.compile(r"\S+://\S+")
_LONGEST: Final = 200


class RequestFault(Exception):
    """A request that failed."""

    def __init__(self, error: InputError, status: int | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status
        """That of HTTP, where the server answered."""


@contextlib.contextmanager
def faults_explained(where: str, *, anonymous: bool) -> Iterator[None]:
    """Raise what goes wrong with requests, `anonymous` ones without credentials, as `RequestFault`."""
    import obstore.exceptions

    where = seen_here(where)
    try:
        with panics_told(where):
            yield
    except InputError as error:
        raise RequestFault(error) from None
    except (obstore.exceptions.BaseError, OSError, ValueError) as error:
        raise _explained(where, error, anonymous=anonymous) from None


@contextlib.contextmanager
def panics_told(where: str) -> Iterator[None]:
    """Raise a panic of obstore, no `Exception` and of a class that can't be imported, as `InputError`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(
            f"{where}: obstore broke off: {_short(str(error))}; check the address, and what is set for "
            "its store"
        ) from None


def _explained(where: str, error: BaseException, *, anonymous: bool) -> RequestFault:
    """What an error of obstore says, as one of ours."""
    import obstore.exceptions as faults

    text = str(error)
    found = _STATUS.search(text)
    status = None if found is None else int(found[1])
    code = _CODE.search(text)
    said = "" if code is None else f", {code[1]}"
    reason = "" if found is None else f" ({found[1]}{found[2].rstrip()}{said})"
    if isinstance(error, FileNotFoundError) or status == 404:
        return RequestFault(InputNotFound(f"{where}: no such object{reason}"), status)
    if isinstance(error, faults.PreconditionError):
        return RequestFault(InputChanged(f"{where}: changed"), status)
    provider = _PROVIDER.search(text)
    if provider is not None:
        return RequestFault(InputError(f"{where}: no credentials: {_short(provider[1])}"), status)
    if isinstance(error, (faults.PermissionDeniedError, faults.UnauthenticatedError)):
        return RequestFault(InputError(f"{where}: no access{reason}; {_remedy(where, anonymous)}"), status)
    if isinstance(error, faults.NotSupportedError):
        problem = "the server does not send parts of it (it ignores Range)"
        return RequestFault(
            InputError(f"{where}: {problem}, and no array is fetched whole; copy it here"), status
        )
    return RequestFault(InputError(f"{where}: {_reason(text, status, reason)}"), status)


def _remedy(where: str, anonymous: bool) -> str:
    if where.startswith("http"):
        return "check the address, or the signature in it"
    if not anonymous:
        return "check the credentials in use, and what they may read"
    return "no credentials were found, and it is not public: set them up as the cloud's own tools have them"


def _reason(text: str, status: int | None, reason: str) -> str:
    if "redirect without LOCATION" in text or status in (301, 307):
        return "the bucket is in another region; set AWS_REGION to it"
    if status is not None and status < 500:
        return f"the server refused the request{reason}; check the address and the credentials"
    if status is not None:
        return f"the server failed{reason}; try again later"
    for pattern, cause in _CAUSES:
        if pattern.search(text):
            return f"the server can't be reached: {cause}; check the address and the network"
    return _short(text.partition("Debug source:")[0]) or "the request failed"


def _short(text: str) -> str:
    return " ".join(_URLS.sub("the server", text).split())[:_LONGEST]
