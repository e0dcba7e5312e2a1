"""Google Cloud Storage, whose objects our own server gives as its emulators do."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import forget_stores, npy
from servers import ObjectServer

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import InputNotFound
from kldiv_cli.sources import open_source


@pytest.mark.parametrize("scheme", ["gs", "gcs"])
def test_an_object_is_read_by_ranges(web: ObjectServer, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", web.url)
    forget_stores()
    array = np.arange(1 << 16)
    web.objects["/dumps/a b/x.npy"] = npy(array)
    source = open_source(f"{scheme}://dumps/a b/x.npy")
    block = (slice(40_000, 40_100),)
    np.testing.assert_array_equal(source.read(block, Buffer()), array[block])
    source.verify()
    assert [asked.range_bytes for asked in web.asked] == [65536, 800, 1]
    with pytest.raises(InputNotFound, match=f"^{scheme}://dumps/nothing: no such object"):
        open_source(f"{scheme}://dumps/nothing")
