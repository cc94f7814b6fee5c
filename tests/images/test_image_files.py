"""Any picture is opened as a viewer shows it, or refused by name."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_ovam.images import faults
from napari_ovam.images.files import ImageFileError, image_size, page_count, read

if TYPE_CHECKING:
    from pathlib import Path

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG whose head says a size, with the chunks that are given."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [chunk(*each) for each in (*chunks, (b"IEND", b""))]
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(parts)


def opened_or_named(path: Path) -> bool:
    """Return whether a file gives a picture, or an error that names it."""
    try:
        return read(path).shape[2:] == (3,)
    except ImageFileError as error:
        return path.name in str(error)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.bmp", "a.ppm"])
def test_what_is_lossless_comes_out_as_it_is(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(RGB).save(tmp_path / name, **options)
    np.testing.assert_array_equal(read(tmp_path / name), RGB)


@pytest.mark.parametrize("name", ["a.jpg", "a.gif", "a.jp2", "a.avif"])
def test_what_is_not_lossless_is_opened(tmp_path: Path, name: str) -> None:
    flat = np.full((32, 48, 3), (200, 40, 90), np.uint8)
    Image.fromarray(flat).save(tmp_path / name)
    found = read(tmp_path / name)
    assert found.shape == flat.shape
    assert np.abs(found.astype(int) - flat).max() <= 4


def test_the_name_says_nothing_about_the_kind(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    path = (tmp_path / "a.png").rename(tmp_path / "photo.JPG")
    np.testing.assert_array_equal(read(path), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "LA", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGB", (7, 5), "white")
    if mode == "LAB":
        picture = Image.new("LAB", (7, 5), (255, 128, 128))
    picture.convert(mode).save(tmp_path / "a.tif")
    found = read(tmp_path / "a.tif")
    assert (found.shape, found.dtype) == ((5, 7, 3), np.uint8)
    assert found.min() > 250


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_nothing_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for look in (read, image_size, page_count):
        with pytest.raises(ImageFileError, match=r"a\.png"):
            look(tmp_path / "a.png")


def test_greyscale_becomes_grey(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), np.dstack([GREY] * 3))


def test_a_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "red").convert("CMYK").save(tmp_path / "a.jpg")
    red, green, blue = read(tmp_path / "a.jpg")[8, 8]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 255))
    picture.putpixel((1, 2), (0, 0, 0, 0))
    picture.convert(mode).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png")
    assert found[2, 1].tolist() == [255] * 3
    assert found[0, 0].tolist() == [0] * 3


def test_a_transparent_colour_of_a_png_is_white(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4), (9, 9, 9))
    picture.save(tmp_path / "a.png", transparency=(9, 9, 9))
    assert (read(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_stretched_to_what_is_there(tmp_path: Path, name: str) -> None:
    # As microscopes write it: 12 bits in 16.
    values = np.linspace(0, 4095, 12 * 20).reshape(12, 20).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    found = read(tmp_path / name)
    expected = np.round(values / 4095 * 255)
    np.testing.assert_allclose(found, np.dstack([expected] * 3), atol=1)
    assert found.max() == 255


def test_floats_are_stretched_and_nan_is_refused(tmp_path: Path) -> None:
    values = np.array([[-1, 0], [0.5, 3]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif")[..., 0].tolist() == [[0, 64], [96, 255]]
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "b.tif")
    with pytest.raises(ImageFileError, match=r"b\.tif holds NaN"):
        read(tmp_path / "b.tif")


def test_an_even_wide_image_is_no_division_by_zero(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    # The bright corner of the upright picture, wherever the camera stored it.
    upright = Image.new("L", (40, 24))
    upright.paste(255, (0, 0, 12, 12))
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif)
    found = read(tmp_path / "a.jpg")
    assert found.shape == (24, 40, 3)
    assert found[4, 4].min() > 200
    assert found[20, 36].max() < 50


def test_the_size_is_that_of_the_turned_picture_wherever_exif_stands(
    tmp_path: Path,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        Image.fromarray(RGB).save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == (14, 9) == read(tmp_path / name).shape[:2]
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB))
    late = png(14, 9, (b"IDAT", pixels), (b"eXIf", body))
    (tmp_path / "late.png").write_bytes(late)
    path = tmp_path / "late.png"
    assert image_size(path) == (14, 9) == read(path).shape[:2]


@pytest.mark.parametrize("orientation", [1, 6])
def test_grey_of_16_bits_is_stretched_beside_opacity_too(
    tmp_path: Path, orientation: int
) -> None:
    values = np.full((9, 14, 2), 65535, ">u2")
    values[..., 0] = np.linspace(0, 4000, 9 * 14).reshape(9, 14)
    values[3, 4, 1] = 0
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = png(14, 9, (b"eXIf", exif.tobytes()[6:]), (b"IDAT", zlib.compress(rows)))
    head = data[12:24] + b"\x10\x04" + data[26:29]
    crc = struct.pack(">I", zlib.crc32(head))
    (tmp_path / "a.png").write_bytes(data[:12] + head + crc + data[33:])
    found = read(tmp_path / "a.png")
    plain = np.rot90(found) if orientation == 6 else found
    wanted = np.round(values[..., 0] * (255 / 4000))
    wanted[3, 4] = 255
    assert np.abs(plain - wanted[..., None]).max() <= 1


def test_a_transparent_value_of_a_16_bit_png_is_white(tmp_path: Path) -> None:
    values = np.array([[0, 100], [200, 400]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=100)
    assert read(tmp_path / "a.png")[..., 0].tolist() == [[0, 255], [128, 255]]


def test_exif_that_is_broken_is_ignored(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read(tmp_path / "a.jpg").shape == RGB.shape


@pytest.mark.parametrize(
    ("name", "kind"), [("a.tif", "pages"), ("a.webp", "frames"), ("a.gif", "frames")]
)
def test_one_of_several_pages_has_to_be_named(tmp_path, name, kind):
    pages = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    options = {} if name.endswith("gif") or name.endswith("tif") else {"lossless": True}
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **options)
    assert page_count(tmp_path / name) == 3
    with pytest.raises(ImageFileError, match=rf"{name} holds 3 {kind}.*page, 0 to 2"):
        read(tmp_path / name)
    assert read(tmp_path / name, page=1)[3, 3].tolist() == [0, 255, 0]
    with pytest.raises(ImageFileError, match="page is 3"):
        read(tmp_path / name, page=3)


def test_an_animated_png_is_named(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime")]
    pages[0].save(tmp_path / "a.png", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageFileError, match="animated"):
        read(tmp_path / "a.png")


def test_a_photo_with_a_preview_behind_it_is_one_picture(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (16, 8), colour) for colour in ("red", "lime")]
    pages[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pages[1:])
    assert page_count(tmp_path / "a.jpg") == 1
    assert read(tmp_path / "a.jpg")[4, 8, 0] > 240


@pytest.mark.parametrize("side", [1, 2])
def test_the_smallest_pictures_are_opened(tmp_path: Path, side: int) -> None:
    Image.new("RGB", (1, side), "red").save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").tolist() == [[[255, 0, 0]]] * side


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])
def test_a_picture_that_is_too_large_is_refused_before_it_is_read(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png(side, side, (b"IDAT", b"x")))
    with pytest.raises(ImageFileError) as caught:
        read(tmp_path / "a.png")
    message = str(caught.value)
    assert f"{side * side // 10**6} million pixels" in message
    assert "89 million are the limit" in message
    assert f"labels {side * side / 1e9:.1f} GB" in message


def test_a_page_that_is_too_large_is_refused(tmp_path, monkeypatch):
    pages = [Image.new("L", (4, 4)), Image.new("L", (40, 40))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(faults, "MAX_PIXELS", 100)
    assert read(tmp_path / "a.tif", page=0).shape == (4, 4, 3)
    with pytest.raises(ImageFileError, match="40 x 40"):
        read(tmp_path / "a.tif", page=1)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.gif"])
def test_a_file_that_is_cut_off_is_named_wherever_it_is_cut(tmp_path, name):
    big = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(big).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    path = tmp_path / f"cut-{name}"
    for part in (12, 40, len(data) // 4, len(data) // 2, len(data) * 3 // 4):
        path.write_bytes(data[:part])
        with pytest.raises(ImageFileError, match=r"cut-a.* is broken or cut off"):
            read(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_bytes_that_were_changed_give_a_picture_or_an_error(tmp_path: Path) -> None:
    """No broken file may raise anything else, whatever Pillow makes of it."""
    rng = np.random.default_rng(2)
    for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.gif", "a.bmp", "a.jp2"):
        Image.fromarray(RGB).save(tmp_path / name)
        data = bytearray((tmp_path / name).read_bytes())
        for _ in range(60):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                changed[place] = rng.integers(0, 256)
            (tmp_path / name).write_bytes(changed)
            assert opened_or_named(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.png is empty \(0 bytes\)"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"8BPS\0\1", "Photoshop"),
        (b"PK\x03\x04rest", "an archive"),
        (b"\x93NUMPY\1\0", "NumPy"),
        (b"hello", "no picture of a kind that is known"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageFileError, match=message):
        read(tmp_path / "a.png")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"no file .*none\.png"):
        read(tmp_path / "none.png")
    with pytest.raises(ImageFileError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(ImageFileError, match=r"no file|cannot be read"):
        read(tmp_path / ("a" * 5000))
    with pytest.raises(ImageFileError, match=r"no file|cannot be read"):
        read("a\0b.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"a\0\0" + zlib.compress(b" " * 80_000_000)),
        (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b" " * 80_000_000)),
        (b"iCCP", b"a\0\0" + zlib.compress(b" " * 80_000_000)),
        (b"iCCP", b"a\0\7broken"),
        (b"tRNS", b"\0" * 3),
        (b"PLTE", b"\0"),
        (b"eXIf", b"nothing of the kind"),
        (b"acTL", b"\0" * 8),
        (b"IHDR", b"short"),
    ],
)
def test_hostile_chunks_give_a_picture_or_an_error(tmp_path, chunk):
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB))
    path = tmp_path / "a.png"
    path.write_bytes(png(14, 9, chunk, (b"IDAT", pixels)))
    assert opened_or_named(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """All but nothing on disk, 20,000 x 20,000 pixels: refused within 300 MB."""
    squeezed = zlib.compress(bytes(50_000_000), 9)
    (tmp_path / "a.png").write_bytes(png(20_000, 20_000, (b"IDAT", squeezed)))
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from napari_ovam.images.files import ImageFileError, read\n"
        "try: read(sys.argv[1])\n"
        "except ImageFileError: pass\n"
        "else: sys.exit('it was opened')\n"
        "status = Path('/proc/self/status').read_text()\n"
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
        "sys.exit(f'{peak} kB' if peak > 300_000 else 0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    subprocess.run(command, check=True, timeout=60)
