"""PNG text: settings are read back, and nobody else's text is believed."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from napari_ovam.images.files import ImageFileError, image_size
from napari_ovam.images.files import read as read_rgb
from napari_ovam.images.png import read_ids, read_png_settings, write_png

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
SETTINGS = {
    "prompt": 'a "cat", 猫 🐈\non two lines',
    "negative_prompt": "rain",
    "seed": 2**63 - 1,
    "steps": 25,
    "guidance_scale": 4.0,
    "height": 4,
    "width": 6,
    "model": "tiny",
}


def test_settings_are_read_back_and_shown_to_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, IMAGE, SETTINGS)
    assert read_png_settings(path) == SETTINGS
    np.testing.assert_array_equal(read_rgb(path), IMAGE)
    with Image.open(path) as picture:
        lines = picture.text["parameters"].split("\n")
    assert lines[2] == "Negative prompt: rain"
    assert "Steps: 25, CFG scale: 4.0, Seed: 9223372036854775807, Size: 6x4" in lines[3]


def test_an_image_without_settings_has_none(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", IMAGE)
    assert read_png_settings(tmp_path / "a.png") is None
    Image.fromarray(IMAGE).save(tmp_path / "b.jpg")
    assert read_png_settings(tmp_path / "b.jpg") is None
    with pytest.raises(FileNotFoundError):
        read_png_settings(tmp_path / "none.png")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "1" * 5000,
        "[" * 100_000,
        '{"prompt": 3}',
        '{"prompt": "a", "seed": -1}',
        '{"prompt": "a", "seed": true}',
        '{"prompt": "a", "seed": null}',
        '{"prompt": "a", "steps": 1e400}',
        '{"prompt": "a", "steps": 2000000000}',
        '{"prompt": "a", "guidance_scale": NaN}',
        '{"prompt": "a", "guidance_scale": "4"}',
        '{"prompt": "a", "height": 1e9}',
        '{"prompt": "a", "model": ["x"]}',
    ],
)
def test_hostile_text_is_not_believed(tmp_path: Path, text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("ovam", text)
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path, pnginfo=info)
    assert read_png_settings(path) is None


def with_chunk(path: Path, body: bytes) -> None:
    """Write a PNG with a chunk (its kind and content) after the header."""
    write_png(path, IMAGE)
    chunk = (
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    )
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk + data[33:])


def test_text_that_unpacks_to_too_much_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    body = b"iTXtovam\0\1\0\0\0" + zlib.compress(b" " * 80_000_000)
    with_chunk(path, body)
    assert read_png_settings(path) is None


def test_a_broken_chunk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with_chunk(path, b"IHDRshort")
    assert read_png_settings(path) is None
    with pytest.raises(ImageFileError, match=r"a\.png is broken"):
        read_rgb(path)


def test_a_picture_that_unpacks_to_too_much_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, IMAGE, SETTINGS)
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + data[24:29]
    path.write_bytes(
        data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    )
    assert read_png_settings(path) is None
    for read in (read_rgb, read_ids, image_size):
        with pytest.raises(ImageFileError, match=r"a\.png"):
            read(path)


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ImageFileError, match=r"a\.png is broken"):
        read_rgb(path)


def test_text_that_has_no_utf8_is_written(tmp_path: Path) -> None:
    settings = SETTINGS | {"prompt": "half of \ud83d"}
    write_png(tmp_path / "a.png", IMAGE, settings)
    assert read_png_settings(tmp_path / "a.png") == settings


def test_settings_that_are_not_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="not JSON"):
        write_png(tmp_path / "a.png", IMAGE, {"prompt": object()})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ids_are_read_as_written(tmp_path: Path, dtype: type) -> None:
    ids = np.array([[0, 1], [255, np.iinfo(dtype).max]], dtype)
    write_png(tmp_path / "a.png", ids)
    found = read_ids(tmp_path / "a.png")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, ids)


def test_ids_of_a_palette_png_are_its_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 3]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 9, 9, 9, 5, 5, 5, 200, 0, 0])
    picture.save(tmp_path / "a.png")
    assert read_ids(tmp_path / "a.png").tolist() == [[0, 3]]


def test_labels_in_colour_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", IMAGE)
    with pytest.raises(ImageFileError, match="in colour"):
        read_ids(tmp_path / "a.png")


def test_settings_can_be_json_of_any_kind(tmp_path: Path) -> None:
    settings = SETTINGS | {"trace": {"calls": [1, 2], "branch": "uncond"}}
    write_png(tmp_path / "a.png", IMAGE, settings)
    assert json.loads(json.dumps(settings)) == read_png_settings(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [0, 3])  # grey, palette
def test_ids_of_few_bits_are_the_values_in_the_file(tmp_path, bits, kind):
    """As programs that save room write them: nothing is stretched to 255, "unsure"."""
    ids = np.array([[0, 1, 2**bits - 1, 0, 1, 1, 0, 0]], np.uint8)
    fields = [f"{int(value):0{bits}b}" for value in ids[0]]
    packed = int("".join(fields), 2).to_bytes(bits, "big")

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + check

    head = struct.pack(">IIBBBBB", 8, 1, bits, kind, 0, 0, 0)
    palette = bytes(range(3 * 2**bits))[:768] if bits < 8 else bytes(768)
    parts = [chunk(b"IHDR", head), chunk(b"PLTE", palette) if kind else b""]
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + packed)), chunk(b"IEND", b"")]
    path = tmp_path / "few.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    np.testing.assert_array_equal(read_ids(path), ids)


def test_labels_packed_with_losses_are_refused_whatever_they_are_called(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.png"
    for kind in ("JPEG", "WEBP"):
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(path, kind)
        with pytest.raises(ImageFileError, match=f"{kind} that blurs"):
            read_ids(path)
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(path, "TIFF")
    np.testing.assert_array_equal(read_ids(path), np.eye(16))
