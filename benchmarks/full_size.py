"""What full-size models take of a GPU: the estimate's memory beside the counted one.

    python benchmarks/full_size.py FOLDER

Stable Diffusion 1.5 and XL in their real shapes, with random weights in half precision,
made in FOLDER (10 GB; a disk in memory is best), loaded and run with each setting of
`MemoryPlan`. What is counted: the largest sum of torch's tensors on the device. Also:
what recording adds to an image, and whether a setting changes the trace.
`--small` makes models of a few channels, to try this on a CPU, where no memory is
counted. Figures are in docs/getting-models.md and docs/speed.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from napari_ovam import (
    GenerationSettings,
    TraceSettings,
    encode_phrase,
    generate,
    load_pipeline,
    phrase_map,
)
from napari_ovam.diffusion.memory import MemoryPlan, estimate_memory

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 20
EVERYTHING = TraceSettings("uncond", layers=None, calls=None, dtype=None)
PLANS = {
    "whole": MemoryPlan(dtype="float16"),
    "decoding in tiles": MemoryPlan(dtype="float16", vae_tiling=True),
    "attention in slices": MemoryPlan(dtype="float16", attention_slicing=True),
    "CPU offload": MemoryPlan(dtype="float16", offload=True),
}


@dataclass(frozen=True)
class Widths:
    """The numbers in which a small model differs from a full-size one."""

    channels: tuple[int, ...]
    decoder: tuple[int, ...]
    text: int  # of CLIP-L
    big: int  # of the second encoder
    layers: int
    heads: int  # of an attention of the UNet


FULL = Widths((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 1280, 12, 8)
SMALL = Widths((128, 128, 128, 128), (32, 32, 32, 32), 64, 64, 2, 2)


def text_encoder(width: int, layers: int, *, projected: bool = False) -> Any:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def sd15(of: Widths) -> StableDiffusionPipeline:
    """Return Stable Diffusion 1.5, at random."""
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=of.channels,
        attention_head_dim=of.heads,
        cross_attention_dim=of.text,
    )
    return StableDiffusionPipeline(
        vae=autoencoder(of, 512),
        text_encoder=text_encoder(of.text, of.layers),
        tokenizer=load_pipeline("tiny", device="cpu").tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(of: Widths) -> StableDiffusionXLPipeline:
    """Return Stable Diffusion XL, at random."""
    channels = of.channels[:3]
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        up_block_types=(*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=[each // 64 for each in channels],
        cross_attention_dim=of.text + of.big,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=of.big + 6 * 256,
    )
    tokenizer = load_pipeline("tiny", device="cpu").tokenizer
    return StableDiffusionXLPipeline(
        vae=autoencoder(of, 1024, force_upcast=True),
        text_encoder=text_encoder(of.text, of.layers),
        text_encoder_2=text_encoder(of.big, round(of.layers * 8 / 3), projected=True),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(),
    )


def autoencoder(of: Widths, side: int, **more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=of.decoder,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=side,
        **more,
    )


MODELS = {"SD 1.5": (sd15, (512, 768)), "SDXL": (sdxl, (1024,))}


class Counted:
    """The largest sum of torch's tensors on a device while it runs, in bytes."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self.bytes = 0

    def __enter__(self) -> Counted:
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *of: object) -> None:
        if self._cuda:
            torch.cuda.synchronize()
            self.bytes = torch.cuda.max_memory_allocated()


def make(folder: Path, device: str, small: bool) -> None:
    """Save each model, unless that was done."""
    for name, (build, _) in MODELS.items():
        if (folder / name / "model_index.json").exists():
            continue
        begin = time.perf_counter()
        torch.manual_seed(0)
        with torch.device(device):
            pipe = build(SMALL if small else FULL)
        pipe.to(torch.float16).save_pretrained(folder / name)
        print(f"{name} made in {time.perf_counter() - begin:.0f} s", flush=True)


def memory(folder: Path, device: str, small: bool) -> None:
    """Print what each plan is estimated to take, and takes."""
    print("model       side  plan                 estimate  counted  ratio  s an image")
    for name, (_, sides) in MODELS.items():
        for side in (64,) if small else sides:
            expected: Any = None
            for title, plan in PLANS.items():
                if plan.offload and device == "cpu":
                    continue
                size = {"height": side, "width": side}
                estimate = estimate_memory(
                    folder / name, device=device, steps=4, plan=plan, **size
                )
                with Counted(device) as counted:
                    pipe = plan.load(folder / name, device=device)
                    settings = GenerationSettings("a cat", steps=4, **size)
                    made = generate(pipe, settings)
                begin = time.perf_counter()
                generate(pipe, settings)
                seconds = time.perf_counter() - begin
                found = phrase_map(made.trace, encode_phrase(pipe, "cat"))
                expected = found if expected is None else expected
                print(
                    f"{name:10} {side:5}  {title:20} {estimate.needed / 1e9:7.2f} GB "
                    f"{counted.bytes / 1e9:6.2f} GB  "
                    f"{estimate.needed / max(counted.bytes, 1):5.2f} {seconds:6.2f}"
                    f"   map differs by {abs(found - expected).max():.1e}",
                    flush=True,
                )
                del pipe, made


def recording(folder: Path, device: str, small: bool) -> None:
    """Print what recording adds to an image: alone, by default, and everything."""
    for name, (_, sides) in MODELS.items():
        side = 64 if small else sides[0]
        pipe = PLANS["whole"].load(folder / name, device=device)
        pipe.set_progress_bar_config(disable=True)
        size = {"height": side, "width": side}
        settings = GenerationSettings("a cat", steps=STEPS, **size)
        runs: dict[str, Callable[[], Any]] = {
            "alone": partial(pipe, "a cat", num_inference_steps=STEPS, **size),
            "default": partial(generate, pipe, settings),
            "everything": partial(generate, pipe, settings, trace=EVERYTHING),
        }
        times: dict[str, list[float]] = {each: [] for each in runs}
        for turn in range(4):
            for each, run in runs.items():
                if device == "cuda":
                    torch.cuda.synchronize()
                begin = time.perf_counter()
                run()
                if turn:  # the first is to be warm
                    times[each].append(time.perf_counter() - begin)
        alone = statistics.median(times["alone"])
        for each, found in times.items():
            seconds = statistics.median(found)
            print(
                f"{name} {side} px, {STEPS} steps, {each}: {seconds:.2f} s, "
                f"{seconds / alone - 1:+.1%}",
                flush=True,
            )
        del pipe, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", default=["memory", "recording"])
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    if given.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    make(given.folder, given.device, given.small)
    for part in (memory, recording):
        if part.__name__ in given.only:
            part(given.folder, given.device, given.small)


if __name__ == "__main__":
    main()
