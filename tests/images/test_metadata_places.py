"""The same settings are found wherever a tool puts them, however they are encoded."""

from __future__ import annotations

import gzip
import html
import json
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_ovam.images.files import ImageFileError
from napari_ovam.images.metadata import read_metadata

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = Image.new("RGB", (32, 24), "gray")
WORDS = "ein Bär – 猫"
PARAMETERS = (
    "{}\nNegative prompt: rain\nSteps: 20, Sampler: Euler, Seed: 12, Size: 64x48"
)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(words: str = WORDS) -> dict[str, Any]:
    return {
        "3": node(
            "KSampler",
            **{"seed": 12, "steps": 20, "cfg": 7, "sampler_name": "euler"},
            **{"positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
        ),
        "5": node("EmptyLatentImage", width=64, height=48),
        "6": node("CLIPTextEncode", text=words),
        "7": node("CLIPTextEncode", text="rain"),
    }


def json_of(words: str = WORDS) -> str:
    return json.dumps(
        {
            **{"prompt": words, "negative_prompt": "rain", "seed": 12, "steps": 20},
            **{"width": 64, "height": 48},
        }
    )


FORMS = {
    "infotext": lambda words: PARAMETERS.format(words),
    "json": json_of,
    "json, plain": lambda words: json.dumps(
        json.loads(json_of(words)), ensure_ascii=False
    ),
    "graph": lambda words: json.dumps(graph(words)),
    "saver": lambda words: json.dumps({"prompt": graph(words), "workflow": {}}),
    "swarm": lambda words: json.dumps(
        {
            "sui_image_params": {
                **{"prompt": words, "negativeprompt": "rain", "seed": 12, "steps": 20},
                **{"cfgscale": 7, "width": 64, "height": 48},
            }
        }
    ),
    "novelai": lambda words: json.dumps(
        {"Comment": json_of(words), "Software": "NovelAI", "Source": "x"}
    ),
    "draw things": lambda words: json.dumps(
        {"c": words, "uc": "rain", "seed": 12, "steps": 20, "scale": 7, "size": "64x48"}
    ),
}


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + crc


def png_with(path: Path, *chunks: bytes, late: bool = False) -> Path:
    PICTURE.save(path)
    data, body = path.read_bytes(), b"".join(chunks)
    place = len(data) - 12 if late else 33
    path.write_bytes(data[:place] + body + data[place:])
    return path


def exif_with(comment: bytes | None = None, **tags: str | bytes) -> bytes:
    exif = Image.Exif()
    for tag, text in tags.items():
        exif[int(tag.removeprefix("t"), 16)] = text
    if comment is not None:
        exif.get_ifd(0x8769)[0x9286] = comment
    return exif.tobytes()


def xmp_of(text: str, attribute: bool) -> bytes:
    text = html.escape(text, quote=True)
    said = f' exif:UserComment="{text}"' if attribute else ""
    inside = "" if attribute else f"<rdf:li xml:lang='x-default'>{text}</rdf:li>"
    return (
        "<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description"
        f"{said}><xmp:CreatorTool>Draw Things</xmp:CreatorTool>{inside}"
        "</rdf:Description></x:xmpmeta>"
    ).encode()


def stealth(path: Path, text: str, compressed: bool) -> None:
    name = b"stealth_pngcomp" if compressed else b"stealth_pnginfo"
    body = gzip.compress(text.encode()) if compressed else text.encode()
    bits = np.unpackbits(
        np.frombuffer(name + (8 * len(body)).to_bytes(4) + body, np.uint8)
    )
    alpha = np.full((64, 200), 254, np.uint8)
    columns = alpha.T.ravel()  # column by column
    columns[: len(bits)] |= bits
    pixels = np.zeros((64, 200, 4), np.uint8)
    pixels[..., 3] = columns.reshape(200, 64).T
    Image.fromarray(pixels).save(path, lossless=True)


ENCODED = {
    "UNICODE, big": lambda text: b"UNICODE\0" + text.encode("utf-16-be"),
    "UNICODE, little": lambda text: b"UNICODE\0" + text.encode("utf-16-le"),
    "UNICODE, marked": lambda text: b"UNICODE\0" + text.encode("utf-16"),
    "UNICODE, UTF-8": lambda text: b"UNICODE\0" + text.encode(),
    "ASCII": lambda text: b"ASCII\0\0\0" + text.encode(),
    "unnamed": lambda text: bytes(8) + text.encode(),
    "bare": str.encode,
    "bare, big": lambda text: text.encode("utf-16-be"),
    "bare, little": lambda text: text.encode("utf-16-le"),
}


def put(folder: Path, place: str, text: str, data: Any) -> Path:
    """Write a picture that says a text in a place."""
    kind, _, where = place.partition(" ")
    path = folder / f"a.{kind}"
    if where == "comment":
        encoded = ENCODED[data.draw(st.sampled_from(sorted(ENCODED)))](text)
        PICTURE.save(path, exif=exif_with(encoded))
    elif where == "description":
        prefix = data.draw(st.sampled_from(["", "Prompt:", "prompt: "]))
        prefix = prefix if text.startswith("{") else ""
        tag = data.draw(st.sampled_from(["t010E", "t010F", "t0110"]))
        PICTURE.save(path, exif=exif_with(**{tag: (prefix + text).encode()}))
    elif where == "xmp":
        PICTURE.save(path, xmp=xmp_of(text, data.draw(st.booleans())))
    elif where == "stealth":
        stealth(path, text, data.draw(st.booleans()))
    elif where == "mark":
        PICTURE.save(path, comment=text.encode())
    else:
        name = data.draw(st.sampled_from([b"parameters", b"prompt", b"Comment"]))
        kinds = {
            b"tEXt": name + b"\0" + text.encode(),
            b"zTXt": name + b"\0\0" + zlib.compress(text.encode()),
            b"iTXt": name + b"\0\0\0\0\0" + text.encode(),
        }
        if name == b"Comment" and data.draw(st.booleans()):
            kinds = {b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_of(text, False)}
        chosen = data.draw(st.sampled_from(sorted(kinds)))
        other = chunk(b"tEXt", b"Title\0of mine")
        late = data.draw(st.booleans())
        png_with(path, other, chunk(chosen, kinds[chosen]), other, late=late)
    return path


@pytest.mark.parametrize(
    "place",
    [
        *("png chunk", "png stealth", "webp stealth", "jpg mark"),
        *(
            f"{kind} {w}"
            for kind in ("jpg", "webp")
            for w in ("comment", "description")
        ),
        *("png comment", "avif comment", "jpg xmp", "webp xmp"),
    ],
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_settings_come_back_from_every_place(
    tmp_path: Path, place: str, data: Any
) -> None:
    form = data.draw(st.sampled_from(sorted(FORMS)))
    words = data.draw(st.sampled_from([WORDS, "a red fox", "Füchse, 狐", "a & b <c>"]))
    path = put(tmp_path, place, FORMS[form](words), data)
    found = read_metadata(path)
    assert (found.prompt, found.negative_prompt) == (words, "rain")
    assert (found.seed, found.steps, found.size) == (12, 20, (48, 64))
    assert found.raw
    assert not found.refused


def test_what_civitai_asked_for_stands_beside_its_graph(tmp_path: Path) -> None:
    extra = {"prompt": "asked", "negativePrompt": "rain", "seed": 5, "cfgScale": 3}
    text = json.dumps({**graph(), "extra": {}, "extraMetadata": json.dumps(extra)})
    PICTURE.save(
        tmp_path / "a.jpg", exif=exif_with(b"UNICODE\0" + text.encode("utf-16-le"))
    )
    found = read_metadata(tmp_path / "a.jpg")
    assert (found.tool, found.prompt, found.seed) == ("ComfyUI", "asked", 5)
    assert (found.guidance_scale, found.steps) == (3, 20)


@pytest.mark.parametrize("late", [False, True])
def test_the_graph_that_ran_goes_before_the_editors(tmp_path: Path, late: bool) -> None:
    drawn = {
        "nodes": [
            {
                **{"id": 3, "type": "KSampler", "widgets_values": [99, "fixed", 9]},
                "inputs": [
                    {"name": name, "link": 1} for name in ("positive", "latent_image")
                ],
            },
            {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["drawn"]},
        ],
        "links": [[1, 6, 0, 3, 0, "CONDITIONING"]],
    }
    tags = {"t010E": "Workflow:" + json.dumps(drawn)}
    PICTURE.save(tmp_path / "a.webp", exif=exif_with(**tags))
    found = read_metadata(tmp_path / "a.webp")
    assert (found.prompt, found.seed, found.steps) == ("drawn", 99, 9)
    tags["t010F"] = "Prompt:" + json.dumps(graph())
    PICTURE.save(tmp_path / "a.webp", exif=exif_with(**tags))
    assert read_metadata(tmp_path / "a.webp").prompt == WORDS


@pytest.mark.parametrize(
    ("chunks", "tool", "model"),
    [
        (
            {"Prompt": WORDS, "Seed": "12", "Stable Diffusion model": "sd-v1-4"},
            *("Easy Diffusion", "sd-v1-4"),
        ),
        (
            {
                "parameters": json.dumps(
                    {
                        **{"prompt": WORDS, "seed": 12, "version": "Fooocus v2.5.5"},
                        **{"base_model": "juggernaut", "resolution": "(896, 1152)"},
                    }
                )
            },
            *("Fooocus", "juggernaut"),
        ),
        (
            {
                "generation_data": json.dumps(
                    {"prompt": WORDS, "seed": 12, "baseModel": {"modelFileName": "x"}}
                )
                + "\0"
            },
            *("", "x"),
        ),
    ],
)
def test_tools_that_name_themselves(tmp_path, chunks, tool, model) -> None:
    made = [
        chunk(b"iTXt", name.encode() + bytes(5) + text.encode())
        for name, text in chunks.items()
    ]
    found = read_metadata(png_with(tmp_path / "a.png", *made))
    assert (found.prompt, found.seed, found.tool) == (WORDS, 12, tool)
    assert found.model == model
    assert set(found.raw) == set(chunks)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_bytes_of_any_kind_are_read_or_refused_by_name(
    tmp_path: Path, data: Any
) -> None:
    place = data.draw(st.sampled_from(["png chunk", "jpg comment", "webp xmp"]))
    form = data.draw(st.sampled_from(sorted(FORMS)))
    path = put(tmp_path, place, FORMS[form](WORDS), data)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with suppress(ImageFileError):
        read_metadata(path)


def test_hidden_text_that_unpacks_to_too_much_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    name, body = b"stealth_pngcomp", gzip.compress(bytes(60_000_000))
    bits = np.unpackbits(
        np.frombuffer(name + (8 * len(body)).to_bytes(4) + body, np.uint8)
    )
    pixels = np.zeros((1000, 1000, 4), np.uint8)
    alpha = np.zeros(1_000_000, np.uint8)
    alpha[: len(bits)] = bits
    pixels[..., 3] = alpha.reshape(1000, 1000).T
    Image.fromarray(pixels).save(path)
    assert len(read_metadata(path).raw["stealth"]) <= 2**22
