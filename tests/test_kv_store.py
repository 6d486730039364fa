"""KVStore: keys of all kinds, damage, missing things, readers and writers at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import latentpack
from latentpack import BitstreamError, KVStore
from latentpack.codecs.tensor.kv import calibrate, decode_pages, encode_pages

K = torch.randn(2, 40, 2, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
TABLES = calibrate([(K, K)])
PAGES = encode_pages(K, K, TABLES, page=16)


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    return KVStore(tmp_path / "kv" if request.param == "disk" else f"memory:/{tmp_path}")


@pytest.mark.parametrize("key", ["a", ".", "..", "a/b/../c", "x.lkv", "ä ü%2F", "*", "k" * 240])
def test_put_get_delete(store, key):
    assert key not in store
    assert list(store) == []
    store.put(key, PAGES)
    assert key in store
    assert list(store) == [key]
    assert store.get(key) == PAGES
    assert store.info(key).shapes == ((2, 40, 2, 8),) * 2
    other = encode_pages(K[:, :3], K[:, :3], TABLES)
    store.put(key, memoryview(other))
    assert store.get(key) == other
    store.delete(key)
    assert key not in store
    for call in (store.get, store.delete, store.info):
        with pytest.raises(KeyError, match="no pages under the key"):
            call(key)


def test_tables(store):
    digest = TABLES.digest.hex()
    with pytest.raises(KeyError, match=digest):
        store.tables(digest)
    store.put_tables(TABLES)
    assert store.tables(digest) == TABLES
    assert list(store) == []
    store.put("k", PAGES)
    data = store.get("k")
    k, _ = decode_pages(data, store.tables(store.info("k").digest))
    assert torch.equal(k, K)


def test_keys_that_are_none(store):
    for key in ("", None, 3, b"k"):
        with pytest.raises(ValueError, match="a key must be text"):
            store.put(key, PAGES)
    with pytest.raises(ValueError, match="use a hash"):
        store.get("ü" * 100)
    assert None not in store


def test_only_whole_pages_come_in(store):
    store.put("k", PAGES)
    for data in (b"", b"hello", PAGES[:-16], PAGES[:-1] + b"\1"):
        with pytest.raises(BitstreamError):
            store.put("k", data)
    assert store.get("k") == PAGES


def test_damage_is_told(tmp_path):
    store = KVStore(tmp_path)
    store.put("k", PAGES)
    path = next(tmp_path.glob("*.lkv"))
    for size in range(0, len(PAGES), 97):
        path.write_bytes(PAGES[:size])
        with pytest.raises(BitstreamError, match="under the key 'k' are damaged"):
            store.get("k")
    for at in range(0, len(PAGES), 5):
        path.write_bytes(PAGES[:at] + bytes([PAGES[at] ^ 16]) + PAGES[at + 1 :])
        with pytest.raises(BitstreamError, match="under the key 'k' are damaged"):
            store.get("k")
    store.put("k", PAGES)
    assert store.get("k") == PAGES
    store.put_tables(TABLES)
    path = next(tmp_path.glob("*.lkt"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BitstreamError, match="damaged or cut"):
        store.tables(TABLES.digest.hex())
    other = calibrate([K])
    path.write_bytes(other.to_bytes())
    with pytest.raises(BitstreamError, match="are others"):
        store.tables(TABLES.digest.hex())


def test_a_failed_write_changes_nothing(tmp_path, monkeypatch):
    store = KVStore(tmp_path)
    store.put("k", PAGES)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="free some space"):
        store.put("k", encode_pages(K[:, :3], K[:, :3], TABLES))
    monkeypatch.undo()
    assert store.get("k") == PAGES
    assert len(list(tmp_path.iterdir())) == 1


def test_readers_and_writers_at_once(tmp_path):
    """Readers always see whole pages, old or new."""
    versions = [encode_pages(K[:, :n], K[:, :n], TABLES) for n in (5, 20, 40)]
    KVStore(tmp_path).put("k", versions[0])

    def work(number):
        store = KVStore(tmp_path)
        for i in range(30):
            if number == 0:
                store.put("k", versions[i % 3])
            else:
                assert store.get("k") in versions

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_an_unknown_file_system():
    with pytest.raises(ValueError, match="nosuch"):
        KVStore("nosuch://x")
    assert latentpack.KVStore is KVStore
