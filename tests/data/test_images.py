"""Pixels: orientation, transparency, odd modes, damage, and exact sizes; every case is a real file."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from trainer.config import DatasetSection
from trainer.data.buckets import Placement, place
from trainer.data.images import DamagedPicture, open_rgb, read_size, resize, strict_decoding, verify
from trainer.data.views import View, load_pixels

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHOLE = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}


def noise(width=96, height=64, mode="RGB"):
    bands = len(mode)
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, bands), dtype=np.uint8).squeeze())


def with_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_with_exif_after_the_pixels(path, image, orientation):
    image.save(path)
    body = with_orientation(orientation).tobytes().removeprefix(b"Exif\x00\x00")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    data = path.read_bytes()
    path.write_bytes(data[:-12] + chunk + data[-12:])


# Where the stored picture's top left corner belongs in the upright one: (right?, bottom?), EXIF 2.3 section 4.6.4
CORNERS = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}


@pytest.mark.parametrize("orientation", list(CORNERS))
@pytest.mark.parametrize("kind", [".png", ".jpg", ".webp", "late.png"])
def test_exif_orientation(tmp_path, orientation, kind):
    stored = Image.new("RGB", (64, 32), (20, 20, 20))
    stored.paste((240, 240, 240), (0, 0, 16, 16))
    path = tmp_path / f"a{kind}"
    if kind == "late.png":
        png_with_exif_after_the_pixels(path, stored, orientation)
    else:
        stored.save(path, exif=with_orientation(orientation), quality=95)
    expected = (64, 32) if orientation < 5 else (32, 64)
    assert read_size(path) == expected
    upright = open_rgb(path, "white")
    assert upright.size == expected
    right, bottom = CORNERS[orientation]
    bright = {
        (x, y)
        for x in (0, 1)
        for y in (0, 1)
        if upright.getpixel((4 if not x else upright.width - 5, 4 if not y else upright.height - 5))[0] > 128
    }
    assert bright == {(right, bottom)}


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_a_meaningless_orientation_is_ignored(tmp_path, orientation):
    noise(30, 20).save(tmp_path / "a.jpg", exif=with_orientation(orientation))
    assert read_size(tmp_path / "a.jpg") == open_rgb(tmp_path / "a.jpg", "white").size == (30, 20)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_picture(tmp_path):
    noise(30, 20).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert read_size(tmp_path / "a.jpg") == open_rgb(tmp_path / "a.jpg", "white").size == (30, 20)


@pytest.mark.parametrize(("background", "expected"), [("white", (255, 255, 255)), ("#ff8000", (255, 128, 0)), ("black", (0, 0, 0))])
@pytest.mark.parametrize("kind", [".png", ".webp"])
def test_transparency_shows_the_background(tmp_path, background, expected, kind):
    image = Image.new("RGBA", (8, 8), (*GREEN, 0))  # hidden green must not leak
    image.paste((*BLUE, 255), (0, 0, 4, 8))
    image.save(tmp_path / f"a{kind}", lossless=True, exact=True)
    rgb = open_rgb(tmp_path / f"a{kind}", background)
    assert rgb.mode == "RGB"
    assert rgb.getpixel((0, 0)) == BLUE
    assert rgb.getpixel((7, 7)) == expected


def test_half_transparency_is_mixed(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 51)).save(tmp_path / "a.png")  # 51/255 = a fifth
    assert open_rgb(tmp_path / "a.png", "white").getpixel((0, 0)) == (204, 204, 204)


def palette():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putpixel((0, 0), 2)
    return image


@pytest.mark.parametrize(
    ("name", "make", "options", "expected"),
    [
        ("palette.png", palette, {}, {(0, 0): BLUE, (1, 1): GREEN}),
        ("clear palette.png", palette, {"transparency": 1}, {(0, 0): BLUE, (1, 1): RED}),
        ("palette alphas.png", palette, {"transparency": bytes([255, 0, 255])}, {(0, 0): BLUE, (1, 1): RED}),
        ("colour key.png", lambda: Image.new("RGB", (4, 4), GREEN), {"transparency": GREEN}, {(1, 1): RED}),
        ("grey.png", lambda: Image.new("L", (4, 4), 77), {}, {(1, 1): (77, 77, 77)}),
        ("grey alpha.png", lambda: Image.new("LA", (4, 4), (77, 0)), {}, {(1, 1): RED}),
        ("one bit.png", lambda: Image.new("1", (4, 4), 1), {}, {(1, 1): (255, 255, 255)}),
        ("deep.png", lambda: Image.fromarray(np.full((4, 4), 32896, np.uint16)), {}, {(1, 1): (128, 128, 128)}),
        ("deep white.png", lambda: Image.fromarray(np.full((4, 4), 65535, np.uint16)), {}, {(1, 1): (255, 255, 255)}),
        ("cmyk.jpg", lambda: Image.new("CMYK", (16, 16), (0, 0, 0, 255)), {"quality": 95}, {(8, 8): (0, 0, 0)}),
        ("grey.jpg", lambda: Image.new("L", (16, 16), 128), {"quality": 95}, {(8, 8): (128, 128, 128)}),
        ("a.bmp", lambda: Image.new("RGB", (5, 3), BLUE), {}, {(4, 2): BLUE}),
    ],
)
def test_modes(tmp_path, name, make, options, expected):
    make().save(tmp_path / name, **options)
    with strict_decoding():
        verify(tmp_path / name)
    rgb = open_rgb(tmp_path / name, "red")
    assert rgb.mode == "RGB"
    assert {place: rgb.getpixel(place) for place in expected} == expected


@pytest.mark.parametrize("suffix", list(WHOLE))
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("tolerant_host", [False, True])
def test_a_truncated_file_is_found(tmp_path, monkeypatch, suffix, part, tolerant_host):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant_host)
    path = tmp_path / f"a{suffix}"
    noise().save(path)
    with strict_decoding():
        verify(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with strict_decoding(), pytest.raises(DamagedPicture) as error:
        verify(path)
    assert str(path) in str(error.value)
    assert str(path) not in error.value.reason
    assert tolerant_host == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 100}])
def test_a_jpeg_that_lacks_its_last_tenth_is_found_in_every_flavour(tmp_path, options):
    path = tmp_path / "a.jpg"
    noise(200, 300).save(path, **options)
    with strict_decoding():
        verify(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.9)])
        with pytest.raises(DamagedPicture, match="truncated"):
            verify(path)


def test_a_corrupt_png_is_found(tmp_path):
    path = tmp_path / "a.png"
    noise().save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with strict_decoding(), pytest.raises(DamagedPicture, match="damaged"):
        verify(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"not a picture at all", "not PNG"),
        (b"GIF89a" + bytes(20), "not PNG"),
        (b"\x89PNG\r\n\x1a\n", "not PNG|damaged"),
    ],
)
def test_what_is_no_picture_has_a_reason(tmp_path, data, reason):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for read in (read_size, verify, lambda path: open_rgb(path, "white")):
        with pytest.raises(DamagedPicture, match=reason):
            read(path)


def test_a_missing_file_has_a_reason(tmp_path):
    with pytest.raises(DamagedPicture, match="No such file"):
        read_size(tmp_path / "a.png")


def test_nested_strict_decoding_restores_the_hosts_setting(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    first, second = strict_decoding(), strict_decoding()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    second.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("size", [(512, 512), (1000, 600), (600, 1000), (31, 50), (512, 511), (80, 3000), (777, 333)])
def test_pixels_are_exactly_the_bucket_in_minus_one_to_one(tmp_path, size):
    config = DatasetSection(folders=({"path": "x"},), resolution=256)
    noise(*size).save(tmp_path / "a.png")
    placement = place(*size, config)
    pixels = load_pixels(tmp_path / "a.png", View(placement), "white")
    assert pixels.shape == (3, placement.bucket[1], placement.bucket[0])
    assert pixels.dtype == torch.float32
    assert pixels.is_contiguous()
    assert pixels.min() >= -1
    assert pixels.max() <= 1


def test_the_value_range_is_linear_in_the_byte(tmp_path):
    image = Image.new("RGB", (64, 64), (0, 51, 255))
    image.save(tmp_path / "a.png")
    pixels = load_pixels(tmp_path / "a.png", View(Placement((64, 64), (64, 64), (0, 0))), "white")
    expected = torch.tensor([-1.0, 51 / 127.5 - 1, 1.0]).view(3, 1, 1).expand(3, 64, 64)
    torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)


def test_same_size_is_the_picture_itself():
    image = noise(64, 48)
    assert resize(image, Placement((64, 48), (64, 48), (0, 0))).tobytes() == image.tobytes()
    assert resize(image, Placement((32, 48), (64, 48), (16, 0))).tobytes() == image.crop((16, 0, 48, 48)).tobytes()


@pytest.mark.parametrize(
    ("size", "placement", "method"),
    [
        ((200, 100), Placement((64, 64), (128, 64), (32, 0)), Image.Resampling.LANCZOS),
        ((100, 260), Placement((64, 96), (64, 166), (0, 35)), Image.Resampling.LANCZOS),
        ((20, 30), Placement((64, 64), (64, 96), (0, 16)), Image.Resampling.BICUBIC),
    ],
)
def test_resizing_the_crop_equals_cropping_the_resized(size, placement, method):
    image = noise(*size)
    (width, height), (left, top) = placement.bucket, placement.crop
    whole = image.resize(placement.resized, method).crop((left, top, left + width, top + height))
    difference = np.abs(np.asarray(resize(image, placement), int) - np.asarray(whole, int))
    assert difference.max() <= 1


def test_shrinking_does_not_alias():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(resize(Image.fromarray(stripes), Placement((64, 64), (64, 64), (0, 0))), int)
    # stripes of one pixel average to mid grey; without antialiasing the result would be black or white
    assert np.abs(small[:, 4:-4] - 127.5).max() < 8
