"""TIFFs of any layout are read as tifffile and the tag for turning say."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_ovam.images.files import ImageFileError, image_size, page_count, read
from napari_ovam.images.metadata import read_metadata

if TYPE_CHECKING:
    from pathlib import Path

_TMP = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
_TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def save(path: Path, pixels: np.ndarray, orientation: int = 1, **how: Any) -> Path:
    tags = [(0x0112, "H", 1, orientation, True)]
    tifffile.imwrite(path, pixels, extratags=tags, metadata=None, **how)
    return path


def expected(pixels: np.ndarray, photometric: str) -> np.ndarray:
    """Return (H, W, 3) as the documentation has it."""
    dtype = pixels.dtype
    if pixels.shape[-1] > 1 and dtype.kind == "u":
        rgb = pixels >> (8 * dtype.itemsize - 8)
    elif dtype.name in ("bool", "uint8"):
        rgb = pixels.astype(np.uint8) * (255 if dtype.kind == "b" else 1)
    else:
        values = pixels.astype(np.float64)
        low = min(0.0, values.min())
        unit = pixels.shape[-1] > 1 and low == 0 and values.max() <= 1
        top = 1.0 if unit else values.max()
        rgb = np.round((values - low) / ((top - low) or 1) * 255)
    rgb = np.broadcast_to(rgb, (*rgb.shape[:2], 3)).astype(np.uint8)
    return 255 - rgb if photometric == "miniswhite" else rgb


@_TMP
@given(data=st.data())
def test_any_layout_is_read_as_it_is_and_turned(tmp_path: Path, data: Any) -> None:
    """Types, planes, tiles, strips, byte orders, compression and orientations."""
    draw = data.draw
    dtype = draw(
        st.sampled_from(
            ["bool", "u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", "u8"]
        )
    )
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    color = dtype != "bool" and draw(st.booleans())
    photometric = (
        "rgb" if color else draw(st.sampled_from(["minisblack", "miniswhite"]))
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    low = 0 if dtype[0] in "bu" else draw(st.sampled_from([0, -1]))
    top = draw(st.sampled_from([1, 100, 4095, 65535])) if dtype != "u1" else 255
    top = min(top, {"i1": 100, "f2": 4095, "i2": 4095}.get(dtype, top))
    pixels = rng.uniform(low * top, top, (height, width, 3 if color else 1))
    pixels = (pixels > top / 2) if dtype == "bool" else pixels.astype(dtype)
    how: dict[str, Any] = {
        "photometric": photometric,
        "byteorder": draw(st.sampled_from("<>")),
        "compression": draw(st.sampled_from([None, "zlib"]))
        if dtype != "bool"
        else None,
        "bigtiff": draw(st.booleans()),
    }
    if how["compression"] and dtype in ("u1", "u2", "i2", "u4"):
        how["predictor"] = draw(st.booleans())
    if dtype != "bool" and draw(st.booleans()):
        how["tile"] = (16, 16)
    elif draw(st.booleans()):
        how["rowsperstrip"] = draw(st.integers(1, 7))
    stored = pixels if color else pixels[..., 0]
    if color and draw(st.booleans()):
        stored, how["planarconfig"] = np.moveaxis(pixels, -1, 0), "separate"
    orientation = draw(st.integers(1, 8))
    path = save(tmp_path / "a.tif", stored, orientation, **how)
    want = _TURNS[orientation](expected(pixels, photometric))
    found = read(path)
    assert found.shape == want.shape == (*image_size(path), 3)
    np.testing.assert_allclose(found.astype(int), want.astype(int), atol=1)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "P", "I;16", "LA", "RGBA"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_of_pillow_come_out_as_they_went_in(
    tmp_path: Path, compression: str, mode: str, orientation: int
) -> None:
    rng = np.random.default_rng(3)
    picture = Image.fromarray(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(0, 4096, (9, 14), dtype=np.uint16))
    else:
        picture = picture.convert(mode)
    path, plain = tmp_path / "a.tif", tmp_path / "a.png"
    picture.save(path, compression=compression, tiffinfo={0x0112: orientation})
    rgb = picture.convert("RGB") if mode == "CMYK" else picture
    rgb.save(plain)
    want = _TURNS[orientation](read(plain))
    np.testing.assert_array_equal(read(path), want)
    assert image_size(path) == want.shape[:2]


@pytest.mark.parametrize("multiplied", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_transparency_shows_white(
    tmp_path: Path, multiplied: bool, dtype: type
) -> None:
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    pixels = np.array([[[top, 0, 0, top], [0, 0, 0, 0]]], dtype)
    how = {"photometric": "rgb", "extrasamples": [1 if multiplied else 2]}
    path = save(tmp_path / "a.tif", pixels, **how)
    assert read(path).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_a_palette_has_its_colours(tmp_path: Path) -> None:
    table = np.zeros((3, 256), np.uint16)
    table[:, 7] = 65535, 0, 32768
    indices = np.full((4, 5), 7, np.uint8)
    path = save(tmp_path / "a.tif", indices, photometric="palette", colormap=table)
    assert (read(path) == [255, 0, 128]).all()


@pytest.mark.parametrize(
    ("pixels", "how", "named"),
    [
        (np.zeros((9, 8, 5), np.uint8), {"planarconfig": "contig"}, "5 channels of 8"),
        (np.zeros((2, 9, 8), np.uint16), {"planarconfig": "separate"}, "2 channels"),
        (np.zeros((9, 8), np.complex64), {}, "1 channels of 64"),
        (np.zeros((9, 8), np.float64), {"compression": "lzma"}, "LZMA"),
    ],
)
def test_a_kind_that_is_not_read_is_named_and_not_called_broken(
    tmp_path: Path, pixels: np.ndarray, how: dict[str, Any], named: str
) -> None:
    path = save(tmp_path / "a.tif", pixels, photometric="minisblack", **how)
    with pytest.raises(ImageFileError, match=f"a.tif is a TIFF of .*{named}"):
        read(path)
    read_metadata(path)


def test_texts_of_a_tiff_are_read_where_pillow_knows_it_or_not(tmp_path: Path) -> None:
    said = "a cat\nSteps: 5, Sampler: Euler, Seed: 3, Size: 8x6"
    for dtype in (np.uint8, np.float64):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.zeros((6, 8), dtype), description=said)
        found = read_metadata(path)
        assert (found.prompt, found.seed, found.size) == ("a cat", 3, (6, 8))


def test_pages_are_counted_and_read_whatever_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((6, 8), np.float64))
        file.write(np.full((6, 8, 3), 9, np.uint8), photometric="rgb")
    assert page_count(path) == 2
    assert (read(path, page=1) == 9).all()
    assert (read(path, page=0) == 0).all()
    with pytest.raises(ImageFileError, match="holds 2 pages"):
        read(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_bytes_give_a_picture_or_the_named_error(
    tmp_path_factory: pytest.TempPathFactory, compression: str, data: Any
) -> None:
    buffer = io.BytesIO()
    pixels = np.arange(3 * 20 * 24, dtype=np.uint16).reshape(3, 20, 24)
    how = {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 7}
    tifffile.imwrite(buffer, pixels, compression=compression, **how)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 300) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([len(content), len(content) // 2]))]
    path = tmp_path_factory.getbasetemp() / "changed.tif"
    path.write_bytes(content)
    for look in (read, image_size, page_count, read_metadata):
        with suppress(ImageFileError):
            look(path)


def test_a_strip_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((6000, 6000), np.float64), compression="zlib")
    content = path.read_bytes()
    for tag in (0x0100, 0x0101, 0x0116):  # width, length and rows of a strip become 4
        place = content.index(tag.to_bytes(2, "little"), 8)
        field = content[place : place + 8] + (4).to_bytes(4, "little")
        content = content[:place] + field + content[place + 12 :]
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match="unpacks to more"):
        read(path)
