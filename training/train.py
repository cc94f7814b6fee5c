"""Train the embedded model from nothing: one command, resumable, seeded.

    python training/train.py --work training/work

The stages (autoencoder, decoder, small scenes, large scenes, export) each continue
where their last checkpoint stood. A stage's budget is a time ("20m") or a number of
steps ("3000"); only step budgets give the same weights twice.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from card import write_card
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from model import (
    TEXT_LENGTH,
    make_autoencoder,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
)
from scenes import compose
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20261122
SCENES = 16_000  # a stage; composed with seeds below TEST_SEEDS
TEST_SEEDS = 10_000_000  # scenes with this seed or above are never trained on
BUDGETS = {"autoencoder": "13m", "decoder": "25m", "small": "25m", "large": "117m"}


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


def to_tensor(images: np.ndarray) -> Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) float32, -1 to 1."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return (pixels / 127.5 - 1).contiguous()


def train_autoencoder(work: Path, budget_text: str) -> AutoencoderKL:
    """L1 + 0.5 L2 + a trace of KL, on 64x64 pictures and crops."""
    vae = make_autoencoder()
    # so that sampling does not drown the latents before they mean anything
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.latent_channels :] = -4.0
    checkpoint = Checkpoint(work / "autoencoder.pt")
    saved = checkpoint.load()
    budget = Budget(budget_text, saved.get("budget", {}))
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=1e-4)
    if saved:
        vae.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    crops = _crops(work)
    generator = torch.Generator().manual_seed(SEED + budget.steps)
    while budget.fraction < 1:
        rows = torch.randint(len(crops), (16,), generator=generator)
        x = to_tensor(crops[rows.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            y = vae.decode(posterior.mean + posterior.std * noise).sample
        error = y.float() - x
        l1 = error.abs().mean()
        loss = l1 + 0.5 * error.square().mean() + 1e-6 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        done = budget.step()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(budget.steps / 50, 1 - 0.98 * done)
        optimizer.step()
        if budget.steps % 50 == 0:
            log(work, stage="autoencoder", step=budget.steps, done=done, l1=l1.item())
        if checkpoint.due() or done >= 1:
            checkpoint.save(
                model=vae.state_dict(),
                optimizer=optimizer.state_dict(),
                budget=budget.state(),
            )
    return vae.eval()


def train_decoder(work: Path, vae: AutoencoderKL, budget_text: str) -> AutoencoderKL:
    """Go on with the decoder alone, so that the latents stay what they are.

    After the first stage the decoder snaps to colours that it has seen often (purple
    becomes blue). An L1 loss on 8x8 means, beside that on pixels, asks for the colour.
    """
    checkpoint = Checkpoint(work / "decoder.pt")
    saved = checkpoint.load()
    budget = Budget(budget_text, saved.get("budget", {}))
    trained = nn.ModuleList([vae.decoder, vae.post_quant_conv])
    vae.requires_grad_(False)
    trained.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), 1e-3, weight_decay=1e-4)
    if saved:
        trained.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    crops = _crops(work)
    generator = torch.Generator().manual_seed(SEED + 1 + budget.steps)
    while budget.fraction < 1:
        rows = torch.randint(len(crops), (16,), generator=generator)
        x = to_tensor(crops[rows.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                z = vae.encode(x).latent_dist.mean
            # what the UNet draws is never exactly a latent of the encoder
            noise = torch.randn(z.shape, generator=generator)
            y = vae.decode(z + 0.05 * z.std() * noise).sample
        error = y.float() - x
        l1 = error.abs().mean()
        colour = nn.functional.avg_pool2d(error, 8).abs().mean()
        loss = l1 + colour + 0.5 * error.square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        done = budget.step()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(budget.steps / 50, 1 - 0.98 * done)
        optimizer.step()
        if budget.steps % 50 == 0:
            values = {"l1": l1.item(), "colour": colour.item()}
            log(work, stage="decoder", step=budget.steps, done=done, **values)
        if checkpoint.due() or done >= 1:
            checkpoint.save(
                model=trained.state_dict(),
                optimizer=optimizer.state_dict(),
                budget=budget.state(),
            )
    return vae.eval()


def _crops(work: Path) -> np.ndarray:
    path = work / "crops.npy"
    if not path.exists():
        rng = np.random.default_rng(SEED)
        found = []
        for seed in range(4000):
            image = compose(seed).image
            for _ in range(2):
                y, x = rng.integers(0, 65, 2)
                found.append(image[y : y + 64, x : x + 64])
            found.append(compose(seed, size=64).image)
        np.save(path, np.stack(found))
    return np.load(path)


def encode_scenes(
    work: Path, vae: AutoencoderKL, size: int, first_seed: int
) -> tuple[Tensor, Tensor, float]:
    """Latents (n, c, h, w) of composed scenes, token ids (n, length), their scale."""
    path = work / f"latents-{size}.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        return saved["latents"], saved["ids"], saved["scale"]
    tokenizer = make_tokenizer()
    latents, ids = [], []
    for start in range(0, SCENES, 32):
        scenes = [compose(first_seed + start + i, size=size) for i in range(32)]
        x = to_tensor(np.stack([s.image for s in scenes]))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents.append(vae.encode(x).latent_dist.mean.half())
        ids.append(
            tokenizer(
                [s.caption for s in scenes],
                padding="max_length",
                max_length=TEXT_LENGTH,
                return_tensors="pt",
            ).input_ids
        )
    saved = {
        "latents": torch.cat(latents),
        "ids": torch.cat(ids),
        "scale": 1 / torch.cat(latents[:40]).float().std().item(),
    }
    torch.save(saved, path)
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
    stage: str,
    budget_text: str,
    data: tuple[Tensor, Tensor],
    scale: float,
    start: nn.ModuleDict | None,
    *,
    learning_rate: float,
    batch: int = 24,
) -> nn.ModuleDict:
    """Train UNet and text encoder together on v-prediction, all time steps alike.

    Salimans and Ho, "Progressive Distillation", ICLR 2022, arXiv 2202.00512. Weights
    that favour little noise (min-SNR) had given colours and textures but no shapes when
    they were replaced half-way through the shipped run; shapes followed. The learning
    rate fell meanwhile, and no run was made to tell the two apart.
    One caption in ten is emptied, for classifier-free guidance.
    """
    tokenizer = make_tokenizer()
    parts = start or nn.ModuleDict(
        {"unet": make_unet(), "text": make_text_encoder(tokenizer)}
    )
    parts.train().requires_grad_(True)
    # On a CPU the backward pass of fused attention is slower than plain products.
    parts["unet"].set_attn_processor(AttnProcessor())
    checkpoint = Checkpoint(work / f"{stage}.pt")
    saved = checkpoint.load()
    budget = Budget(budget_text, saved.get("budget", {}))
    optimizer = torch.optim.AdamW(
        parts.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    if saved:
        parts.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    ema = Ema(parts, 0.999)
    if saved:
        ema.module.load_state_dict(saved["ema"])
    latents, ids = data
    empty = torch.tensor(
        tokenizer("", padding="max_length", max_length=TEXT_LENGTH).input_ids
    )
    scheduler = make_scheduler()
    generator = torch.Generator().manual_seed(SEED + budget.steps)
    losses: list[float] = []
    for rows in _batches(len(latents), batch, SEED + budget.steps):
        if budget.fraction >= 1:
            break
        x = latents[rows].float() * scale
        tokens = ids[rows].clone()
        tokens[torch.rand(len(rows), generator=generator) < 0.1] = empty
        t = torch.randint(1000, (len(rows),), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        noisy = scheduler.add_noise(x, noise, t)
        target = scheduler.get_velocity(x, noise, t)
        with torch.autocast("cpu", torch.bfloat16):
            states = parts["text"](tokens).last_hidden_state
            v = parts["unet"](noisy, t, states).sample
        loss = nn.functional.mse_loss(v.float(), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        done = budget.step()
        rate = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(budget.steps / 100, float(rate))
        optimizer.step()
        ema.update(parts, budget.steps)
        losses.append(loss.item())
        if budget.steps % 50 == 0:
            mean = float(np.mean(losses[-50:]))
            log(work, stage=stage, step=budget.steps, done=done, loss=mean)
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
        vae=vae.half(),
        text_encoder=copy.deepcopy(parts["text"]).half(),
        tokenizer=make_tokenizer(),
        unet=copy.deepcopy(parts["unet"]).half(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(out)
    defaults = {"steps": 25, "guidance_scale": 4.0, "height": 128, "width": 128}
    (out / "ovam_defaults.json").write_text(json.dumps(defaults, indent=2) + "\n")
    vae.float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("training/work"))
    parser.add_argument("--out", type=Path, default=Path("src/napari_ovam/tiny"))
    for stage, default in BUDGETS.items():
        parser.add_argument(f"--{stage}", default=default, help="as 20m, or in steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)

    vae = train_autoencoder(work, arguments.autoencoder)
    vae = train_decoder(work, vae, arguments.decoder)
    *small, scale = encode_scenes(work, vae, 64, 1_000_000)
    vae.register_to_config(scaling_factor=scale)
    parts = train_diffusion(
        work, "small", arguments.small, tuple(small), scale, None, learning_rate=1e-3
    )
    # The export after the first stage is a model to look at while the second runs.
    export(work / "model-small", parts, vae)
    *large, _ = encode_scenes(work, vae, 128, 2_000_000)
    parts = train_diffusion(
        work, "large", arguments.large, tuple(large), scale, parts, learning_rate=8e-4
    )
    export(arguments.out, parts, vae)
    write_card(arguments.out, work / "log.jsonl", work / "check.json")


if __name__ == "__main__":
    main()
