"""Files as each tool writes them are read, and none is believed further than that."""

from __future__ import annotations

import json
import struct
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from napari_ovam.base.generation_settings import GenerationSettings
from napari_ovam.images import metadata_formats
from napari_ovam.images.files import ImageFileError
from napari_ovam.images.metadata import ImageMetadata, read_metadata
from napari_ovam.images.png import write_png

if TYPE_CHECKING:
    from pathlib import Path

A1111 = """a cat, (hat:1.2), <lora:grass:0.8>
on two lines: 猫
Negative prompt: rain, blurry
ugly: very
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 965400086, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Denoising strength: 0.4, \
Lora hashes: "grass: 3b5f, hat: 77a1", TI hashes: "a \\"b\\": c", Version: v1.10.1"""
A1111_FOUND = {
    "tool": "AUTOMATIC1111",
    "prompt": "a cat, (hat:1.2), <lora:grass:0.8>\non two lines: 猫",
    "negative_prompt": "rain, blurry\nugly: very",
    "seed": 965400086,
    "sampler": "DPM++ 2M Karras",
    "steps": 20,
    "guidance_scale": 6.5,
    "size": (768, 512),
    "model": "v1-5-pruned-emaonly",
}
COMFY: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            **{"seed": 2**60 + 1, "steps": 25, "cfg": 8, "sampler_name": "euler"},
            **{"scheduler": "normal", "denoise": 1, "model": ["10", 0]},
            **{"positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
        },
    },
    "4": {
        "class_type": "CheckpointLoaderSimple",
        "inputs": {"ckpt_name": "v1-5.safetensors"},
    },
    "5": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 640, "height": 448, "batch_size": 1},
    },
    "6": {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": "a cat in a hat", "clip": ["10", 1]},
    },
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "rain", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "x", "model": ["4", 0], "clip": ["4", 1]},
    },
}
COMFY_FOUND = {
    "tool": "ComfyUI",
    "prompt": "a cat in a hat",
    "negative_prompt": "rain",
    "seed": 2**60 + 1,
    "sampler": "euler",
    "steps": 25,
    "guidance_scale": 8.0,
    "size": (448, 640),
    "model": "v1-5.safetensors",
}
# Texts of one hundred nodes that hold no settings, as a workflow has.
WORKFLOW = json.dumps({"nodes": [{"id": i, "pos": [0, i]} for i in range(100)]})


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + crc


def text_chunk(name: str, text: str) -> bytes:
    """Return text as Pillow and the tools write it: tEXt, or iTXt beyond Latin-1."""
    try:
        return chunk(b"tEXt", name.encode() + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        head = name.encode() + b"\0\0\0\0\0"
        return chunk(b"iTXt", head + text.encode())


def png_with(path: Path, *chunks: bytes, late: bool = False) -> Path:
    """Write a PNG with chunks before or after its pixels."""
    Image.new("RGB", (8, 6)).save(path, "PNG")
    data, body = path.read_bytes(), b"".join(chunks)
    place = len(data) - 12 if late else 33
    path.write_bytes(data[:place] + body + data[place:])
    return path


def exif_with(comment: bytes | None = None, **tags: str) -> bytes:
    exif = Image.Exif()
    for tag, text in tags.items():
        exif[int(tag.removeprefix("t"), 16)] = text
    if comment is not None:
        exif.get_ifd(0x8769)[0x9286] = comment
    return exif.tobytes()


def fields_of(found: ImageMetadata) -> dict[str, Any]:
    return {name: getattr(found, name) for name in A1111_FOUND}


@pytest.mark.parametrize("late", [False, True])
def test_automatic1111_png(tmp_path: Path, late: bool) -> None:
    path = png_with(tmp_path / "a.png", text_chunk("parameters", A1111), late=late)
    found = read_metadata(path)
    assert fields_of(found) == A1111_FOUND
    assert found.raw == {"parameters": A1111}
    assert not found.refused


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif", "a.png"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + A1111.encode("utf-16-be"),  # piexif, so A1111 and Forge
        b"UNICODE\0" + A1111.encode("utf-16-le"),
        b"UNICODE\0" + A1111.encode("utf-16"),  # with a byte order mark
        b"\0" * 8 + A1111.encode(),
        b"ASCII\0\0\0" + A1111.encode(),
    ],
)
def test_automatic1111_exif(tmp_path: Path, name: str, comment: bytes) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / name, exif=exif_with(comment))
    found = read_metadata(tmp_path / name)
    assert fields_of(found) == A1111_FOUND
    assert found.raw["EXIF UserComment"] == A1111


def test_forge(tmp_path: Path) -> None:
    text = (
        "a cat\nSteps: 4, Sampler: Euler, Schedule type: Simple, CFG scale: 1, "
        "Distilled CFG Scale: 3.5, Seed: 7, Size: 896x1152, Model hash: 9b17, "
        'Model: "my model, v2: final", Version: f2.0.1v1.10.1-previous-669-gdfdcbab6, '
        "Module 1: ae"
    )
    found = read_metadata(png_with(tmp_path / "a.png", text_chunk("parameters", text)))
    assert (found.tool, found.prompt, found.negative_prompt) == ("Forge", "a cat", "")
    assert (found.sampler, found.steps, found.guidance_scale) == ("Euler Simple", 4, 1)
    assert (found.seed, found.size) == (7, (1152, 896))
    assert found.model == "my model, v2: final"


def test_automatic1111_with_lines_after_and_without_a_prompt(tmp_path: Path) -> None:
    text = "Negative prompt: rain\nSteps: 5, Seed: 3, Size: 8x6\n\nTemplate: a {x|y}"
    found = read_metadata(png_with(tmp_path / "a.png", text_chunk("parameters", text)))
    assert (found.prompt, found.negative_prompt, found.seed) == ("", "rain", 3)
    assert found.settings() is None


def test_a_prompt_that_talks_of_settings_stays_a_prompt(tmp_path: Path) -> None:
    prompt = "Steps: 99 stairs, Seed: of doubt\nsays Negative prompt: no"
    text = f"{prompt}\nSteps: 5, Sampler: Euler, Seed: 3, Size: 8x6"
    found = read_metadata(png_with(tmp_path / "a.png", text_chunk("parameters", text)))
    assert (found.prompt, found.negative_prompt) == (prompt, "")
    assert (found.steps, found.seed) == (5, 3)


def test_comfyui_png(tmp_path: Path) -> None:
    chunks = [
        text_chunk("prompt", json.dumps(COMFY)),
        text_chunk("workflow", WORKFLOW),
    ]
    found = read_metadata(png_with(tmp_path / "a.png", *chunks))
    assert fields_of(found) == COMFY_FOUND
    assert json.loads(found.raw["prompt"]) == COMFY
    assert found.raw["workflow"] == WORKFLOW


def test_comfyui_webp(tmp_path: Path) -> None:
    exif = exif_with(t0110="prompt:" + json.dumps(COMFY), t010F="workflow:" + WORKFLOW)
    Image.new("RGB", (8, 6)).save(tmp_path / "a.webp", exif=exif)
    found = read_metadata(tmp_path / "a.webp")
    assert fields_of(found) == COMFY_FOUND
    assert found.raw["EXIF Make"] == "workflow:" + WORKFLOW


def test_comfyui_with_linked_values_and_a_second_sampler(tmp_path: Path) -> None:
    graph = json.loads(json.dumps(COMFY))
    graph["3"]["inputs"]["seed"] = ["20", 0]
    graph["20"] = {"class_type": "PrimitiveInt", "inputs": {"value": 77}}
    graph["6"]["inputs"]["text"] = ["21", 0]
    graph["21"] = {"class_type": "String", "inputs": {"string": "a linked cat"}}
    # The refiner comes first in the file, and after the other in the chain.
    refiner = {**graph["3"]["inputs"], "seed": 1, "steps": 9, "latent_image": ["3", 0]}
    graph = {"1": {"class_type": "KSampler", "inputs": refiner}, **graph}
    text = text_chunk("prompt", json.dumps(graph))
    found = read_metadata(png_with(tmp_path / "a.png", text))
    assert (found.seed, found.steps, found.prompt) == (77, 25, "a linked cat")


def test_comfyui_with_separate_sampler_parts(tmp_path: Path) -> None:
    graph = {
        "1": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                **{"noise": ["2", 0], "guider": ["3", 0], "sampler": ["4", 0]},
                **{"sigmas": ["5", 0], "latent_image": ["6", 0]},
            },
        },
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
        "3": {
            "class_type": "CFGGuider",
            "inputs": {
                **{"cfg": 3.5, "model": ["7", 0]},
                **{"positive": ["8", 0], "negative": ["9", 0]},
            },
        },
        "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "heun"}},
        "5": {
            "class_type": "BasicScheduler",
            "inputs": {"scheduler": "simple", "steps": 12, "model": ["7", 0]},
        },
        "6": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 64, "height": 32, "batch_size": 1},
        },
        "7": {"class_type": "UNETLoader", "inputs": {"unet_name": "u.safetensors"}},
        "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}},
        "9": {"class_type": "CLIPTextEncode", "inputs": {"text": "rain"}},
    }
    text = text_chunk("prompt", json.dumps(graph))
    found = read_metadata(png_with(tmp_path / "a.png", text))
    assert (found.prompt, found.negative_prompt) == ("a cat", "rain")
    assert (found.seed, found.steps, found.guidance_scale) == (5, 12, 3.5)
    assert (found.sampler, found.size, found.model) == (
        "heun",
        (32, 64),
        "u.safetensors",
    )


INVOKE = {
    **{"app_version": "5.4.1", "generation_mode": "txt2img", "positive_prompt": "cat"},
    **{"negative_prompt": "rain", "width": 512, "height": 640, "seed": 11},
    **{"cfg_scale": 7.5, "cfg_rescale_multiplier": 0, "steps": 30},
    **{"scheduler": "euler_a", "clip_skip": 0, "loras": []},
}


@pytest.mark.parametrize(
    "model",
    [
        {"key": "a-b", "hash": "blake3:1", "name": "sd15", "base": "sd-1"},  # 4 on
        {"model_name": "sd15", "base_model": "sd-1", "model_type": "main"},  # 3
    ],
)
def test_invokeai(tmp_path: Path, model: dict[str, str]) -> None:
    text = text_chunk("invokeai_metadata", json.dumps({**INVOKE, "model": model}))
    graph = text_chunk("invokeai_graph", WORKFLOW)
    found = read_metadata(png_with(tmp_path / "a.png", text, graph))
    assert (found.tool, found.prompt, found.negative_prompt) == (
        *("InvokeAI", "cat", "rain"),
    )
    assert (found.seed, found.steps, found.guidance_scale) == (11, 30, 7.5)
    assert (found.sampler, found.size, found.model) == ("euler_a", (640, 512), "sd15")
    assert set(found.raw) == {"invokeai_metadata", "invokeai_graph"}


@pytest.mark.parametrize(
    "prompt", ["a cat [rain] [fog]", [{"prompt": "a cat [rain] [fog]", "weight": 1}]]
)
def test_invokeai_2(tmp_path: Path, prompt: Any) -> None:
    content = {
        "model": "stable diffusion",
        "model_weights": "stable-diffusion-1.5",
        "app_version": "2.3.0",
        "image": {
            **{"prompt": prompt, "steps": 50, "cfg_scale": 7.5, "height": 512},
            **{"width": 384, "seed": 3, "sampler": "k_lms", "type": "txt2img"},
        },
    }
    text = text_chunk("sd-metadata", json.dumps(content))
    found = read_metadata(png_with(tmp_path / "a.png", text))
    assert (found.tool, found.prompt, found.negative_prompt) == (
        *("InvokeAI", "a cat", "rain, fog"),
    )
    assert (found.seed, found.steps, found.size) == (3, 50, (512, 384))
    assert (found.sampler, found.model) == ("k_lms", "stable-diffusion-1.5")


def test_the_first_invokeai(tmp_path: Path) -> None:
    text = '"a \\"big\\" cat [rain]" -s 50 -S 2935259260 -W 512 -H 448 -C 7.5 -A k_lms'
    found = read_metadata(png_with(tmp_path / "a.png", text_chunk("Dream", text)))
    assert (found.prompt, found.negative_prompt) == ('a "big" cat', "rain")
    assert (found.seed, found.steps, found.size) == (2935259260, 50, (448, 512))
    assert (found.guidance_scale, found.sampler) == (7.5, "k_lms")


DIFFUSERS = {
    **{"prompt": "a cat", "negative_prompt": "rain", "num_inference_steps": 25},
    **{"guidance_scale": 4.5, "seed": 9, "width": 64, "height": 32},
    **{"scheduler": "DDIMScheduler", "model_id": "owner/model"},
}


def check_diffusers(found: ImageMetadata) -> None:
    assert (found.prompt, found.negative_prompt) == ("a cat", "rain")
    assert (found.seed, found.steps, found.guidance_scale) == (9, 25, 4.5)
    assert (found.size, found.sampler) == ((32, 64), "DDIMScheduler")
    assert found.model == "owner/model"


@pytest.mark.parametrize("name", ["parameters", "metadata", "comment", "Description"])
def test_json_as_scripts_around_diffusers_write_it(tmp_path: Path, name: str) -> None:
    text = text_chunk(name, json.dumps(DIFFUSERS))
    check_diffusers(read_metadata(png_with(tmp_path / "a.png", text)))


def test_json_in_the_comment_and_the_exif_of_a_jpeg(tmp_path: Path) -> None:
    text = json.dumps(DIFFUSERS)
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", comment=text)
    check_diffusers(read_metadata(tmp_path / "a.jpg"))
    exif = exif_with(b"UNICODE\0" + text.encode("utf-16-be"))
    Image.new("RGB", (8, 6)).save(tmp_path / "b.jpg", exif=exif)
    check_diffusers(read_metadata(tmp_path / "b.jpg"))


def test_one_chunk_a_setting(tmp_path: Path) -> None:
    chunks = [text_chunk(name, str(value)) for name, value in DIFFUSERS.items()]
    check_diffusers(read_metadata(png_with(tmp_path / "a.png", *chunks)))


def test_our_own_chunk_is_the_one_that_counts(tmp_path: Path) -> None:
    import numpy as np

    settings = {
        **{"prompt": "a cat\n猫", "negative_prompt": "rain", "seed": 2**63 - 1},
        **{"steps": 25, "guidance_scale": 4.0, "height": 32, "width": 64},
        "model": "tiny",
    }
    write_png(tmp_path / "a.png", np.zeros((32, 64, 3), np.uint8), settings)
    found = read_metadata(tmp_path / "a.png")
    assert found.tool == "napari-ovam"
    assert found.model == "tiny"
    assert found.settings() == GenerationSettings(
        "a cat\n猫", "rain", 2**63 - 1, 25, 4.0, 32, 64
    )
    assert set(found.raw) == {"parameters", "ovam"}
    # The other chunk says the same to whoever reads that one.
    text = text_chunk("parameters", found.raw["parameters"])
    shown = read_metadata(png_with(tmp_path / "b.png", text))
    assert (shown.tool, shown.settings()) == ("napari-ovam", found.settings())


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("Steps: 2000000000, Seed: 3", "steps"),
        ("Steps: 0, Seed: 3", "steps"),
        ("Steps: 20.5, Seed: 3", "steps"),
        ("Steps: many, Seed: 3", "steps"),
        ("Steps: 2, Seed: -1", "seed"),
        (f"Steps: 2, Seed: {2**63}", "seed"),
        (f"Steps: 2, Seed: {'9' * 5000}", "seed"),
        ("Steps: 2, Seed: 3, CFG scale: nan", "guidance_scale"),
        ("Steps: 2, Seed: 3, CFG scale: -7", "guidance_scale"),
        ("Steps: 2, Seed: 3, CFG scale: 1e999", "guidance_scale"),
        ("Steps: 2, Seed: 3, Size: 0x512", "width"),
        ("Steps: 2, Seed: 3, Size: 512x99999999", "height"),
        ("Steps: 2, Seed: 3, Size: 16000x16000", "size"),
        (f"Steps: 2, Seed: 3, Model: {'m' * 5000}", "model"),
    ],
)
def test_a_lie_is_refused_alone_and_named(tmp_path, line, refused):
    text = text_chunk("parameters", f"a cat\n{line}")
    found = read_metadata(png_with(tmp_path / "a.png", text))
    assert set(found.refused) == {refused}
    assert not getattr(found, refused, None)
    assert found.prompt == "a cat"
    assert found.steps == (None if refused == "steps" else 2)
    assert len(found.refused[refused]) < 120
    assert line in found.raw["parameters"]


@pytest.mark.parametrize(
    "content",
    [
        *({"prompt": 3, "seed": 4}, {"prompt": None, "seed": True, "steps": [3]}),
        *({"prompt": {"a": "b"}}, {"prompt": "a", "seed": 1.5, "width": "x"}),
        *({"image": 3}, {"image": {"prompt": [3]}}, {"image": {"prompt": {}}}, [1], 7),
        {"prompt": "a", "steps": float("nan"), "guidance_scale": float("inf")},
        {"3": {"inputs": {"positive": ["3", 0], "latent_image": ["3", 0]}}},
        {"3": {"inputs": {"positive": ["4", 0], "latent_image": ["5", 0], "seed": []}}},
        {"3": {"inputs": 5}, "4": None, "5": {"inputs": {"seed": ["5", 0]}}},
    ],
)
def test_content_of_the_wrong_kind_is_kept_raw(tmp_path: Path, content: Any) -> None:
    text = json.dumps(content)
    for name in ("ovam", "prompt", "parameters", "invokeai_metadata", "sd-metadata"):
        found = read_metadata(png_with(tmp_path / "a.png", text_chunk(name, text)))
        assert found.raw == {name: text}
        assert isinstance(found.prompt, str)
        assert found.seed in (None, 4)
        assert found.steps is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "no settings", "{", '{"prompt": ', "[" * 100_000, '{"a":' * 100_000),
        *(": " * 100_000, "," * 100_000, '"' * 100_000, "Steps: " * 50_000),
        *("a: " + '"\\' * 50_000, "\n" * 100_000, "Negative prompt:\n" * 20_000),
        '"' + "a [" * 50_000 + '" -s 3',
        "prompt:{" + "[" * 50_000,
    ],
)
def test_hostile_text_is_read_in_no_time(tmp_path: Path, text: str) -> None:
    names = ("ovam", "parameters", "prompt", "Dream", "sd-metadata", "Comment")
    path = png_with(tmp_path / "a.png", *(text_chunk(name, text) for name in names))
    start = time.perf_counter()
    found = read_metadata(path)
    assert time.perf_counter() - start < 5
    assert found.raw == dict.fromkeys(names, text)
    assert found.seed is None


def test_a_loop_of_ten_thousand_nodes_ends(tmp_path: Path) -> None:
    graph = {
        str(i): {
            "inputs": {
                **{"positive": [str((i + 1) % 10_000), 0], "text": [str(i), 0]},
                "latent_image": [str((i * 7) % 10_000), 0],
            }
        }
        for i in range(10_000)
    }
    text = text_chunk("prompt", json.dumps(graph))
    start = time.perf_counter()
    found = read_metadata(png_with(tmp_path / "a.png", text))
    assert time.perf_counter() - start < 10
    assert found.prompt == ""


def test_control_characters_do_not_come_through() -> None:
    found = metadata_formats.read_infotext("a\x07 cat\x00\nSteps: 3, Seed: 4")
    assert found["prompt"] == "a\x07 cat\x00"
    from napari_ovam.images.metadata import _checked

    assert _checked(found, {}).prompt == "a  cat"


def test_text_of_other_programs_is_kept(tmp_path: Path) -> None:
    exif = exif_with(t0131="GIMP 2.10", t010E="my cat")
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    found = read_metadata(tmp_path / "a.jpg")
    assert found.raw == {
        "EXIF Software": "GIMP 2.10",
        "EXIF ImageDescription": "my cat",
    }
    assert found.settings() is None
    assert fields_of(found) == fields_of(ImageMetadata())


def test_a_picture_whose_pixels_are_cut_off_still_says_how_it_was_made(tmp_path):
    path = png_with(tmp_path / "a.png", text_chunk("parameters", A1111))
    path.write_bytes(path.read_bytes()[:-20])
    assert fields_of(read_metadata(path)) == A1111_FOUND


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08"]
)
def test_broken_exif_says_nothing(tmp_path: Path, exif: bytes) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    assert read_metadata(tmp_path / "a.jpg").prompt == ""


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    for path in (tmp_path / "a.png", tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageFileError):
            read_metadata(path)
