"""Train the embedded model from nothing: one command, resumable, seeded.

    python training/train.py --device cuda       # ten minutes on an H100
    python training/train.py                     # many hours on a few CPU cores

The stages (scenes, autoencoder, diffusion, export) each continue where their last
checkpoint stood. A stage's budget is a time ("5.5m") or a number of steps ("3000");
only step budgets on one kind of device give the same weights twice.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from card import write_card
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from model import (
    SIDE,
    TEXT_LENGTH,
    make_autoencoder,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
)
from scenes import compose
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SEED = 20261126
FIRST_SCENE = 2_000_000  # the seed of the first scene that is trained on
TEST_SEEDS = 10_000_000  # scenes with this seed or above are never trained on
BUDGETS = {"autoencoder": "2m", "diffusion": "5m"}
_CHUNK = 250  # scenes a process composes at a time


class Budget:
    """How much of a stage is done, from 0 to 1, in seconds or steps, over restarts."""

    def __init__(self, text: str, state: dict[str, float]) -> None:
        self.in_time = text.endswith("m")
        self.limit = float(text.rstrip("m")) * (60 if self.in_time else 1)
        self.seconds = state.get("seconds", 0.0)
        self.steps = int(state.get("steps", 0))
        self._start = time.monotonic() - self.seconds

    def step(self) -> float:
        self.steps += 1
        self.seconds = time.monotonic() - self._start
        return self.fraction

    @property
    def fraction(self) -> float:
        used = self.seconds if self.in_time else self.steps
        return min(used / self.limit, 1.0)

    def state(self) -> dict[str, float]:
        return {"seconds": self.seconds, "steps": self.steps}


class Checkpoint:
    """A stage's state on disk, written beside and moved into place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = time.monotonic()

    def load(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        return state

    def due(self) -> bool:
        return time.monotonic() - self._last > 90

    def save(self, **state: Any) -> None:
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.path)
        self._last = time.monotonic()


def log(work: Path, **values: float | str) -> None:
    """Append one line to the log of losses and show it."""
    line = json.dumps({k: _short(v) for k, v in values.items()})
    with (work / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def _short(value: float | str) -> float | str:
    return round(value, 5) if isinstance(value, float) else value


def to_tensor(images: NDArray[np.uint8], device: str = "cpu") -> Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) float32, -1 to 1."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
    return (pixels / 127.5 - 1).contiguous()


def compose_scenes(work: Path, count: int) -> tuple[NDArray[np.uint8], list[str]]:
    """(count, side, side, 3) pictures, read from disk when used, and captions."""
    path, captions = work / "scenes.npy", work / "captions.json"
    if not captions.exists():
        shape = (count, SIDE, SIDE, 3)
        np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            parts = pool.map(partial(_compose_some, path), range(0, count, _CHUNK))
            captions.write_text(json.dumps([text for part in parts for text in part]))
    return np.load(path, mmap_mode="r"), json.loads(captions.read_text())


def _compose_some(path: Path, start: int) -> list[str]:
    images = np.load(path, mmap_mode="r+")
    captions = []
    for number in range(start, min(start + _CHUNK, len(images))):
        scene = compose(FIRST_SCENE + number, size=SIDE)
        images[number] = scene.image
        captions.append(scene.caption)
    return captions


def train_autoencoder(
    work: Path,
    budget_text: str,
    images: NDArray[np.uint8],
    device: str,
    *,
    learning_rate: float = 1.5e-3,
    batch: int = 24,
) -> AutoencoderKL:
    """L1 on pixels, on their differences (edges) and on 8x8 means (flat colours).

    A quarter of the pictures goes in at half the resolution and has to come out
    sharp, so that a soft picture's latents are among those that the UNet knows.
    """
    vae = make_autoencoder()
    # so that sampling does not drown the latents before they mean anything
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.latent_channels :] = -4.0
    vae.to(device)
    checkpoint = Checkpoint(work / "autoencoder.pt")
    saved = checkpoint.load()
    budget = Budget(budget_text, saved.get("budget", {}))
    optimizer = torch.optim.AdamW(vae.parameters(), learning_rate, weight_decay=1e-4)
    ema = Ema(vae, 0.998)
    if saved:
        vae.load_state_dict(saved["model"])
        ema.module.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
    generator = torch.Generator(device).manual_seed(SEED + budget.steps)
    for rows in _batches(len(images), batch, SEED + budget.steps):
        if budget.fraction >= 1:
            break
        x = to_tensor(images[np.sort(rows.numpy())], device)
        with torch.autocast(device, torch.bfloat16):
            posterior = vae.encode(_some_softened(x, generator)).latent_dist
            z = posterior.mean
            # what the UNet draws is never exactly a latent of the encoder
            spread = posterior.std + 0.05 * z.detach().std()
            noise = torch.randn(z.shape, generator=generator, device=device)
            y = vae.decode(z + spread * noise).sample
        error = y.float() - x
        l1 = error.abs().mean()
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        colour = functional.avg_pool2d(error, 8).abs().mean()
        loss = l1 + edges + colour + 1e-6 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        done = budget.step()
        for group in optimizer.param_groups:
            rate = min(budget.steps / 100, 1 - 0.98 * done)
            group["lr"] = learning_rate * rate
        optimizer.step()
        ema.update(vae, budget.steps)
        if budget.steps % 100 == 0:
            values = {"l1": l1.item(), "edges": edges.item(), "colour": colour.item()}
            log(work, stage="autoencoder", step=budget.steps, done=done, **values)
        if checkpoint.due() or done >= 1:
            checkpoint.save(
                model=vae.state_dict(),
                ema=ema.module.state_dict(),
                optimizer=optimizer.state_dict(),
                budget=budget.state(),
            )
    return ema.module


def _some_softened(x: Tensor, generator: torch.Generator) -> Tensor:
    half = functional.avg_pool2d(x, 2)
    soft = functional.interpolate(half, scale_factor=2, mode="bicubic")
    chosen = torch.rand(len(x), generator=generator, device=x.device) < 0.25
    return torch.where(chosen[:, None, None, None], soft.clamp(-1, 1), x)


@torch.no_grad()
def encode_scenes(
    work: Path,
    vae: AutoencoderKL,
    images: NDArray[np.uint8],
    captions: list[str],
    device: str,
) -> tuple[Tensor, Tensor, float]:
    """Latents (2n, c, h, w) of scenes and their mirror images, token ids, the scale."""
    path = work / "latents.pt"
    if not path.exists():
        found = []
        for start in range(0, len(images), 64):
            x = to_tensor(np.array(images[start : start + 64]), device)
            with torch.autocast(device, torch.bfloat16):
                both = vae.encode(torch.cat([x, x.flip(-1)])).latent_dist.mean
            found.append(torch.stack(both.half().cpu().chunk(2), 1))
        ids = make_tokenizer()(
            captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
        ).input_ids
        latents = torch.cat(found).flatten(0, 1)
        scale = 1 / latents[:2000].float().std().item()
        kept = {"latents": latents, "ids": ids.repeat_interleave(2, 0), "scale": scale}
        torch.save(kept, path)
    saved = torch.load(path, weights_only=True)
    return saved["latents"], saved["ids"], saved["scale"]


class Ema:
    """Exponential moving average of weights, with the usual warm-up of its decay."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.module.parameters()), list(module.parameters()), 1 - decay
        )


def _batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)


def train_diffusion(
    work: Path,
    budget_text: str,
    data: tuple[Tensor, Tensor],
    scale: float,
    device: str,
    *,
    learning_rate: float = 1e-3,
    batch: int = 512,
) -> nn.ModuleDict:
    """Train UNet and text encoder together on v-prediction, all time steps alike.

    Salimans and Ho, "Progressive Distillation", ICLR 2022, arXiv 2202.00512.
    One caption in ten is emptied, for classifier-free guidance.
    """
    tokenizer = make_tokenizer()
    parts = nn.ModuleDict({"unet": make_unet(), "text": make_text_encoder(tokenizer)})
    parts.to(device).train()
    if device == "cpu":
        # There the backward pass of fused attention is slower than plain products.
        parts["unet"].set_attn_processor(AttnProcessor())
    checkpoint = Checkpoint(work / "diffusion.pt")
    saved = checkpoint.load()
    budget = Budget(budget_text, saved.get("budget", {}))
    optimizer = torch.optim.AdamW(
        parts.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    ema = Ema(parts, 0.999)
    if saved:
        parts.load_state_dict(saved["model"])
        ema.module.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
    latents, ids = (each.to(device) for each in data)
    empty = tokenizer("", padding="max_length", max_length=TEXT_LENGTH).input_ids
    empty = torch.tensor(empty, device=device)
    signal = make_scheduler().alphas_cumprod.to(device)[:, None, None, None]
    generator = torch.Generator(device).manual_seed(SEED + budget.steps)
    losses: list[Tensor] = []
    for rows in _batches(len(latents), batch, SEED + budget.steps):
        if budget.fraction >= 1:
            break
        rows = rows.to(device)
        x = latents[rows].float() * scale
        dropped = torch.rand(len(rows), generator=generator, device=device) < 0.1
        tokens = torch.where(dropped[:, None], empty, ids[rows])
        t = torch.randint(1000, (len(rows),), generator=generator, device=device)
        noise = torch.randn(x.shape, generator=generator, device=device)
        kept, added = signal[t].sqrt(), (1 - signal[t]).sqrt()
        with torch.autocast(device, torch.bfloat16):
            states = parts["text"](tokens).last_hidden_state
            v = parts["unet"](kept * x + added * noise, t, states).sample
        loss = functional.mse_loss(v.float(), kept * noise - added * x)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        done = budget.step()
        rate = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(budget.steps / 200, float(rate))
        optimizer.step()
        ema.update(parts, budget.steps)
        losses.append(loss.detach())
        if budget.steps % 100 == 0:
            mean = torch.stack(losses[-100:]).mean().item()
            log(work, stage="diffusion", step=budget.steps, done=done, loss=mean)
        if checkpoint.due() or done >= 1:
            checkpoint.save(
                model=parts.state_dict(),
                ema=ema.module.state_dict(),
                optimizer=optimizer.state_dict(),
                budget=budget.state(),
            )
    return ema.module


def export(out: Path, parts: nn.ModuleDict, vae: AutoencoderKL) -> None:
    """Write the diffusers folder that the package ships, in half precision."""
    pipe = StableDiffusionPipeline(
        vae=vae.cpu().half(),
        text_encoder=parts["text"].cpu().half(),
        tokenizer=make_tokenizer(),
        unet=parts["unet"].cpu().half(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(out)
    defaults = {"steps": 25, "guidance_scale": 4.0, "height": SIDE, "width": SIDE}
    (out / "ovam_defaults.json").write_text(json.dumps(defaults, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("training/work"))
    parser.add_argument("--out", type=Path, default=Path("src/napari_ovam/tiny"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--scenes", type=int, default=60_000)
    for stage, default in BUDGETS.items():
        parser.add_argument(f"--{stage}", default=default, help="as 20m, or in steps")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    work: Path = arguments.work
    device: str = arguments.device
    work.mkdir(parents=True, exist_ok=True)

    images, captions = compose_scenes(work, arguments.scenes)
    vae = train_autoencoder(work, arguments.autoencoder, images, device)
    latents, ids, scale = encode_scenes(work, vae, images, captions, device)
    vae.register_to_config(scaling_factor=scale)
    parts = train_diffusion(work, arguments.diffusion, (latents, ids), scale, device)
    export(arguments.out, parts, vae)
    write_card(arguments.out, work / "log.jsonl", work / "check.json")


if __name__ == "__main__":
    main()
