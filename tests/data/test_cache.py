"""Cache: round trip, damage, atomic writing, and keys that change with everything that changes the result."""

from __future__ import annotations

import os

import pytest
import torch

from trainer.data.buckets import Placement
from trainer.data.cache import TensorCache, file_digest, latent_key, mask_key, text_key
from trainer.errors import OutputError

KEY = "ab" * 32
PLACEMENT = Placement((512, 512), (768, 512), (128, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_round_trip(tmp_path, dtype):
    cache = TensorCache(tmp_path / "not yet there")
    tensors = {"latents": torch.arange(24).reshape(4, 2, 3).to(dtype).transpose(0, 1), "empty": torch.zeros(0, 3)}
    tensors["same memory"] = tensors["latents"]
    assert cache.get(KEY) is None
    assert not cache.has(KEY)
    cache.put(KEY, tensors)
    assert cache.has(KEY)
    found = cache.get(KEY)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert [path.relative_to(cache.folder).parts for path in cache.folder.rglob("*.*")] == [("ab", f"{KEY}.safetensors")]


@pytest.mark.parametrize("keep", [0, 3, 8, 40, -1])
def test_a_damaged_file_counts_as_absent_and_is_removed(tmp_path, keep):
    cache = TensorCache(tmp_path)
    cache.put(KEY, {"x": torch.ones(5)})
    path = cache.path(KEY)
    path.write_bytes(path.read_bytes()[:keep])
    assert cache.get(KEY) is None
    assert not path.exists()
    cache.put(KEY, {"x": torch.zeros(2)})
    assert torch.equal(cache.get(KEY)["x"], torch.zeros(2))


def test_an_interrupted_write_leaves_the_old_entry(tmp_path, monkeypatch):
    cache = TensorCache(tmp_path)
    cache.put(KEY, {"x": torch.ones(5)})

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        cache.put(KEY, {"x": torch.zeros(5)})
    assert torch.equal(cache.get(KEY)["x"], torch.ones(5))
    assert [path.name for path in tmp_path.rglob("*.*")] == [f"{KEY}.safetensors"], "no temporary file is left"


def test_a_cache_folder_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "cache").write_text("x")
    with pytest.raises(OutputError, match=r"dataset\.cache\.dir"):
        TensorCache(tmp_path / "cache").put(KEY, {"x": torch.ones(1)})


@pytest.mark.parametrize("key", ["", "../../etc", "xyz", "AB" * 32, "ab"])
def test_keys_are_digests(tmp_path, key):
    with pytest.raises(AssertionError):
        TensorCache(tmp_path).get(key)


def test_file_digest_is_sha256_and_follows_the_content(tmp_path):
    path = tmp_path / "a b.bin"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"")
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    before = file_digest(path)
    path.write_bytes(b"abe")
    os.utime(path, ns=(2, 2))
    assert file_digest(path) != before


def test_latent_keys_differ_with_everything_that_changes_the_pixels():
    def key(image="1" * 64, placement=PLACEMENT, vae="vae", dtype=torch.float32, flip=False, background="white"):
        return latent_key(image, placement, vae, dtype, flip, background=background)

    keys = [
        key(),
        key(image="2" * 64),
        key(placement=Placement((512, 448), (768, 512), (128, 0))),
        key(placement=Placement((512, 512), (769, 512), (128, 0))),
        key(placement=Placement((512, 512), (768, 512), (127, 0))),
        key(vae="other"),
        key(dtype=torch.float16),
        key(flip=True),
        key(background="black"),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key(dtype="float32", background="#ffffff")


def test_mask_keys_differ_with_everything_that_changes_the_mask():
    def key(image="1" * 64, mask="3" * 64, alpha=False, placement=PLACEMENT, flip=False, latent_pixels=8):
        return mask_key(image, mask, alpha, placement, flip, latent_pixels)

    keys = [
        key(),
        key(mask="4" * 64),
        key(mask=None),
        key(alpha=True),
        key(alpha=True, image="2" * 64),
        key(placement=Placement((512, 448), (768, 512), (128, 0))),
        key(placement=Placement((512, 512), (769, 512), (128, 0))),
        key(placement=Placement((512, 512), (768, 512), (127, 0))),
        key(flip=True),
        key(latent_pixels=4),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key(image="2" * 64), "without its alpha channel the picture does not count"


def test_text_keys():
    keys = [
        text_key("a cat", "clip", torch.float16),
        text_key("a dog", "clip", torch.float16),
        text_key("a cat", "other", torch.float16),
        text_key("a cat", "clip", torch.bfloat16),
        text_key("a cat", "clip", torch.float16, 1),
        text_key("a cat", "clip", torch.float16, 2),
        text_key("a", " catclip", torch.float16),
    ]
    assert len(set(keys)) == len(keys)
    assert text_key("a cat", "clip", torch.float16) == text_key("a cat", "clip", "float16")
