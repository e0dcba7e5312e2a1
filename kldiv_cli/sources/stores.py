"""Connections to stores of objects, set up by what the environment and the usual files of each cloud say."""

from __future__ import annotations

import base64
import functools
import os
import re
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kldiv_cli.errors import InputError, UsageError
from kldiv_cli.sources.arrival import seen_here
from kldiv_cli.sources.remote_errors import panics_told
from kldiv_cli.streams import one_line
from kldiv_cli.urls import VERSION, extra_of, is_listed, shown, split_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSStore, HTTPStore, RetryConfig, S3Store

__all__ = ["Place", "place_below", "place_of", "required"]

_RETRIES: Final[RetryConfig] = {"max_retries": 4, "retry_timeout": timedelta(minutes=2)}
_CLIENT: Final[ClientConfig] = {"timeout": timedelta(minutes=2), "connect_timeout": timedelta(seconds=10)}
_CREDENTIALS_LIVE: Final = timedelta(minutes=5)
"""botocore renews what expires sooner than this."""
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_BUCKET: Final = re.compile(r"[\w.:-]+", re.ASCII)
_HOST: Final = re.compile(r"[^\s%<>^`{|}]+")
_MACHINE: Final = "/sys/class/dmi/id/product_name"


class Place(NamedTuple):
    """Where an object lies, and how it is asked for."""

    store: S3Store | GCSStore | HTTPStore
    key: str
    version: str | None = None
    anonymous: bool = False
    """No credentials were found, so requests are not signed."""


def required(url: str, library: str) -> UsageError:
    """What to say where a library is not installed."""
    return UsageError(
        f"{seen_here(shown(url))}: needs {library}; install it with pip install 'kldiv-cli[{extra_of(url)}]'"
    )


def place_of(url: str) -> Place:
    """The store that an address leads to, and the object in it.

    Raises
    ------
    UsageError
        The address has no bucket or no object, or a library is not installed.
    InputError
        What is configured for the store can't be used.
    """
    _check_installed(url)
    scheme, rest = split_url(url)
    if not is_listed(url):
        return Place(_http_store(url), "")
    bucket, _, key = rest.partition("/")
    if not bucket or not key:
        raise UsageError(f"{shown(url)}: expected {scheme}://BUCKET/OBJECT")
    version = ""
    if scheme == "s3":
        key, _, version = key.partition(VERSION)
    store, anonymous = _store(url, bucket)
    return Place(store, key, version or None, anonymous)


def place_below(url: str) -> Place:
    """A store of all that lies below an address, whose keys begin there.

    Raises
    ------
    UsageError
        The address has no bucket, or a library is not installed.
    InputError
        What is configured for the store can't be used.
    """
    _check_installed(url)
    scheme, rest = split_url(url)
    if not is_listed(url):
        return Place(_http_store(url), "")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise UsageError(f"{shown(url)}: expected {scheme}://BUCKET/PREFIX")
    store, anonymous = _store(url, bucket, prefix.rstrip("/") or None)
    return Place(store, "", None, anonymous)


def _store(url: str, bucket: str, prefix: str | None = None) -> tuple[S3Store | GCSStore, bool]:
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{shown(url)}: {bucket!r} is the name of no bucket")
    with panics_told(shown(url)):
        return (_s3_store if split_url(url)[0] == "s3" else _gcs_store)(bucket, prefix)


def _check_installed(url: str) -> None:
    try:
        import obstore  # noqa: F401
    except ImportError:
        raise required(url, "obstore") from None


def _names_server(url: str) -> bool:
    """Whether an address begins as one of the web, which obstore would not check before it needs it."""
    try:
        parts = urllib.parse.urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https") and has_port and _HOST.fullmatch(parts.hostname or "") is not None
    )


def _http_store(url: str) -> HTTPStore:
    """A store of this one object, so that its address and query are sent as they are written."""
    from obstore.store import HTTPStore

    if not _names_server(url):
        raise UsageError(f"{shown(url)}: expected {split_url(url)[0]}://HOST/FILE")
    parts = urllib.parse.urlsplit(url)
    headers: dict[str, str] = {}
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    client: ClientConfig = {**_CLIENT, "allow_http": parts.scheme == "http"}
    if headers:
        client["default_headers"] = headers
    with panics_told(shown(url)):
        return HTTPStore.from_url(bare, client_options=client, retry_config=_RETRIES)


# Amazon S3 and what speaks its language


@functools.lru_cache(maxsize=64)
def _s3_store(bucket: str, prefix: str | None = None) -> tuple[S3Store, bool]:
    """A connection to a bucket, or to what is below a prefix in it, and whether it is without credentials."""
    from obstore.store import S3Store

    config: dict[str, Any] = {}
    provider: _AwsCredentials | None = None
    anonymous = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true")
    if not anonymous and _asks_botocore():
        found = _aws_config(f"s3://{bucket}")
        config |= found.config
        provider = None if found.credentials is None else _AwsCredentials(found.credentials)
        anonymous = provider is None
    if anonymous:
        config["skip_signature"] = True
    endpoint = config.get("endpoint") or _first_of(os.environ, *_ENDPOINTS) or ""
    if endpoint and not _names_server(endpoint):
        named = "endpoint_url" if "endpoint" in config else next(filter(os.environ.get, _ENDPOINTS))
        raise InputError(
            f"{seen_here(f's3://{bucket}')}: {named} is {endpoint!r}, expected http://HOST:PORT or https://HOST"
        )
    client: ClientConfig = {**_CLIENT, "allow_http": endpoint.startswith("http://")}
    store = S3Store(
        bucket,
        prefix=prefix,
        config=config,  # type: ignore[arg-type]
        client_options=client,
        retry_config=_RETRIES,
        credential_provider=provider,
    )
    return store, anonymous


def _asks_botocore() -> bool:
    """Whether more is to be known than the environment says: it takes a while to load."""
    said = os.environ.get("AWS_ACCESS_KEY_ID") and not os.environ.get("AWS_PROFILE")
    config = os.environ.get("AWS_CONFIG_FILE") or os.path.expanduser("~/.aws/config")
    return not said or os.path.exists(config)


class _AwsConfig(NamedTuple):
    config: dict[str, Any]
    credentials: Any
    """botocore's, or None."""


def _aws_config(url: str) -> _AwsConfig:
    """What profiles, roles, single sign-on or the machine say, as botocore finds it."""
    try:
        import botocore.exceptions
        import botocore.session
    except ImportError:
        raise required(url, "botocore") from None
    try:
        session = botocore.session.Session()
        profile = session.get_scoped_config()
        region = session.get_config_variable("region")
        credentials = session.get_credentials()
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise InputError(
            f"{seen_here(url)}: the AWS configuration can't be used: {one_line(error)}"
        ) from None
    config = {}
    if region and not _first_of(os.environ, "AWS_REGION", "AWS_DEFAULT_REGION"):
        config["region"] = region
    if profile.get("endpoint_url") and not _first_of(os.environ, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        config["endpoint"] = profile["endpoint_url"]
    return _AwsConfig(config, credentials)


class _AwsCredentials:
    """Hands botocore's credentials to obstore, renewed where they expire."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def __call__(self) -> Any:
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LIVE,
        }


# Google Cloud Storage


@functools.lru_cache(maxsize=64)
def _gcs_store(bucket: str, prefix: str | None = None) -> tuple[GCSStore, bool]:
    """A connection to a bucket, or to what is below a prefix in it, and whether it is without credentials."""
    from obstore.store import GCSStore

    config: dict[str, Any] = {}
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:
        config["base_url"] = emulator if "://" in emulator else f"http://{emulator}"
    anonymous = bool(emulator) or not _has_google_credentials()
    if anonymous:
        config["skip_signature"] = True
    client: ClientConfig = {**_CLIENT, "allow_http": config.get("base_url", "").startswith("http://")}
    store = GCSStore(
        bucket,
        prefix=prefix,
        config=config,  # type: ignore[arg-type]
        client_options=client,
        retry_config=_RETRIES,
    )
    return store, anonymous


def _has_google_credentials() -> bool:
    """Whether there are any: else the metadata server is asked, which exists on Google's machines only."""
    if any(name.startswith(("GOOGLE_", "GCE_METADATA_")) and value for name, value in os.environ.items()):
        return True
    settings = os.environ.get("APPDATA") if os.name == "nt" else os.path.expanduser("~/.config")
    if os.path.exists(os.path.join(settings or "", "gcloud", "application_default_credentials.json")):
        return True
    try:
        with open(_MACHINE, encoding="ascii", errors="replace") as file:
            return file.read().startswith("Google")
    except OSError:
        return False


def _first_of(values: Mapping[str, str], *names: str) -> str | None:
    return next((values[name] for name in names if values.get(name)), None)
