"""Addresses of objects in stores and on servers: ``s3://``, ``gs://``, ``https://``, ``http://``."""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "SCHEMES",
    "VERSION",
    "extra_of",
    "has_wildcard",
    "is_listed",
    "is_remote",
    "is_url",
    "shown",
    "split_dataset",
    "split_url",
]

_EXTRAS: Final = {"s3": "s3", "gs": "gs", "gcs": "gs", "https": "http", "http": "http"}
SCHEMES: Final = tuple(_EXTRAS)

VERSION: Final = "?versionId="
"""What names a version of an object behind its key in S3."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_WILDCARDS: Final = re.compile(r"[*?\[]")
_USERINFO: Final = re.compile(r"(?<=://)[^/?#]*@")
_SECRET: Final = re.compile(r"[?#].*", re.DOTALL)


def is_remote(text: str) -> bool:
    """Whether an address is that of an object that is read over the network."""
    found = _URL.match(text) if "://" in text else None
    return found is not None and found[1].lower() in SCHEMES


def is_url(text: str) -> bool:
    """Whether an address has a scheme, be it one that can be read or not."""
    return "://" in text and _URL.match(text) is not None


def is_listed(url: str) -> bool:
    """Whether what lies below an address can be asked for: stores of objects tell, servers of files don't."""
    return split_url(url)[0] not in ("http", "https")


def extra_of(url: str) -> str:
    """The extra of this package that installs what reads such an address."""
    return _EXTRAS[split_url(url)[0]]


def split_url(text: str) -> tuple[str, str]:
    """The scheme in lower case, and what is behind it."""
    scheme, _, rest = text.partition("://")
    return scheme.lower(), rest


def split_dataset(address: str) -> tuple[str, str, str]:
    """The URL, ``::`` and what is behind it, or two empty strings; ``http://[::1]/`` has one in its host."""
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    path, colons, dataset = path.partition("::")
    return scheme + separator + host + slash + path, colons, dataset


def has_wildcard(url: str) -> bool:
    """Whether the path of a URL has ``*``, ``?`` or ``[``; a query is none."""
    scheme, rest = split_url(url)
    path = rest.partition("/")[2]
    path = path.partition("?")[0] if scheme in ("http", "https") else path.partition(VERSION)[0]
    return _WILDCARDS.search(path) is not None


def shown(address: str) -> str:
    """An address as results and errors name it: a URL without its user, password and query.

    The query may hold a signature that lets anybody read the object.
    """
    if not is_remote(address):
        return address
    url, separator, rest = split_dataset(address)
    if split_url(url)[0] in ("http", "https"):
        url = _SECRET.sub("", _USERINFO.sub("", url))
    return url + separator + rest
