"""Estimate the memory that a model takes before it is loaded, and make it fit.

What is counted: all weights that are loaded, at the precision that is chosen (exact,
from the headers of the files); the trace (exact); and the activations of the larger of
the UNet and the decoder, as the largest sum of tensors alive at one time. That sum was
counted on Stable Diffusion 1.x, XL and their decoders with tensors that have shapes
only: for the UNet 26 (1.x) and 16 (XL) times its first feature map with both halves of
the guidance, of which 26 is used, for the decoder 3 times the widest map at full size,
and 5 on CUDA, where cuDNN copies what goes in and out into its own layout (counted on
an H200). A fifth is added for what libraries need beside it, on CUDA also cuBLAS's
workspace. A transformer's tokens count as such a map, those of all frames of a video at
its usual length, which was not counted on a real one; a video is decoded a few frames
at a time, which count as one.
Attention scores count on MPS only: CUDA and CPU never make them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.devices import find_device, find_dtype
from napari_ovam.diffusion.pipelines import load_pipeline
from napari_ovam.diffusion.sizes import ModelSizes
from napari_ovam.hub.families import ModelError
from napari_ovam.hub.store import find_model, human_size

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNET_MAPS = 26
_DECODER_MAPS, _DECODER_MAPS_ON_CUDA = 3, 5
_CUBLAS = 2**25
_BESIDE = 1.2
_TRACE = TraceSettings()


@dataclass(frozen=True)
class MemoryPlan:
    """How a model is loaded and run, to take less memory; each setting stands alone.

    Attributes
    ----------
    dtype
        As in `load_pipeline`. "float16" halves the weights; on a CPU "bfloat16" does,
        and is slow.
    offload
        Keep on the device only the component that runs (accelerate's model offload).
        Needs a CUDA or MPS device; slower by the copying, results are the same.
    attention_slicing
        Compute attention piece by piece. Helps on MPS and with old GPUs; elsewhere
        the attention is made without its scores anyway, and this makes it slower.
    vae_tiling
        Decode images larger than the decoder's own size in tiles, blended where they
        overlap: pixels change slightly, traces do not.
    """

    dtype: str = "auto"
    offload: bool = False
    attention_slicing: bool = False
    vae_tiling: bool = False

    def load(self, model: str | Path, *, device: str = "auto") -> Any:
        """Load a pipeline as planned; see `load_pipeline` for errors.

        It raises `ValueError` if `offload` is wanted on a CPU, which has nowhere to
        offload to.
        """
        target = find_device(device)
        self._check(target)
        dtype = find_dtype(self.dtype, target)
        pipe = load_pipeline(
            model, device="cpu" if self.offload else str(target), dtype=dtype
        )
        self.apply(pipe, device=str(target))
        return pipe

    def apply(self, pipe: Any, *, device: str = "auto") -> None:
        """Make a loaded pipeline run as planned; its precision stays as it is.

        Settings that are off are switched off. Traces are recorded as before.

        It raises `ValueError` if `offload` is wanted on a CPU.
        """
        target = find_device(device)
        self._check(target)
        if self.attention_slicing:
            pipe.enable_attention_slicing()
        else:
            denoiser = pipeline_architecture(pipe).denoiser(pipe)
            there = getattr(denoiser, "attn_processors", {}).values()
            if any("Sliced" in type(processor).__name__ for processor in there):
                pipe.disable_attention_slicing()
        if getattr(pipe, "vae", None) is not None:
            (pipe.vae.enable_tiling if self.vae_tiling else pipe.vae.disable_tiling)()
        if self.offload:
            pipe.enable_model_cpu_offload(device=target)
        elif getattr(pipe, "_all_hooks", None):
            pipe.remove_all_hooks()
            pipe._all_hooks = []
            pipe.to(target)

    def _check(self, device: torch.device) -> None:
        if self.offload and device.type == "cpu":
            raise ValueError(
                "offload is wanted and the model runs on the CPU, which has nowhere to "
                "offload to: choose half precision or a smaller image"
            )


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device."""

    weights: Mapping[str, int]  # by component
    activations: Mapping[str, int]  # while they run: of the denoiser and the decoder
    trace: int  # of one image
    free: int  # what the device has left now
    device: str
    plan: MemoryPlan = field(default_factory=MemoryPlan)

    @property
    def needed(self) -> int:
        """Bytes at the worst moment."""
        return sum(self._worst) + self.trace

    @property
    def _worst(self) -> tuple[int, int]:
        """Weights and activations when they take most together."""
        if self.plan.offload:
            both = [(n, self.activations.get(k, 0)) for k, n in self.weights.items()]
            return max(both, key=sum, default=(0, 0))
        return sum(self.weights.values()), max(self.activations.values(), default=0)

    @property
    def fits(self) -> bool:
        """Whether that is free."""
        return self.needed <= self.free

    def __str__(self) -> str:
        """Return it as a sentence for a person."""
        weights, computing = self._worst
        return (
            f"about {human_size(self.needed)} on {self.device}: weights "
            f"{human_size(weights)}, computing {human_size(computing)}, trace "
            f"{human_size(self.trace)}; {human_size(self.free)} are free"
        )


@dataclass(frozen=True)
class MemoryOption:
    """One setting that makes a model take less."""

    name: str  # as a button says it
    price: str  # what it costs, in a sentence
    estimate: MemoryEstimate  # with it; `estimate.plan` is the plan to load with


def estimate_memory(
    model: str | Path,
    *,
    device: str = "auto",
    height: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    trace: TraceSettings = _TRACE,
    plan: MemoryPlan | None = None,
) -> MemoryEstimate:
    """Estimate what a model on this machine takes; no weight is read.

    It raises `ModelError` if the model is not on this machine, or is none; `ValueError`
    if the device or the precision does not exist.

    Parameters
    ----------
    model, device
        As in `load_pipeline`.
    height, width
        Of the image in pixels; the model's own size by default.
    steps
        Denoising calls that are recorded, where `trace` names none; the
        architecture's default by default.
    trace
        What is recorded.
    plan
        How the model is to be loaded and run.
    """
    plan = plan or MemoryPlan()
    target = find_device(device)
    dtype = find_dtype(plan.dtype, target)
    found = ModelSizes.read(_path(model))
    rows, columns = (
        math.ceil((size or own) / found.factor)
        for size, own in zip((height, width), found.size, strict=True)
    )
    batch, item = 2, dtype.itemsize  # both halves of the guidance
    cells = rows * columns * found.frames
    unet = _UNET_MAPS * batch * cells * found.unet_channels * item
    if target.type == "mps" and not plan.attention_slicing:
        unet += found.scores(rows, columns) * batch * item
    pixels = rows * columns * found.factor**2
    if plan.vae_tiling:
        pixels = min(pixels, found.tile**2)
    # A decoder that overflows in half precision is run in full.
    wide = 4 if found.upcast and dtype == torch.float16 else item
    on_cuda = target.type == "cuda"
    maps = _DECODER_MAPS_ON_CUDA if on_cuda else _DECODER_MAPS
    decoder = maps * pixels * found.vae_channels * wide
    beside = _CUBLAS if on_cuda else 0
    return MemoryEstimate(
        weights={name: count * item for name, count in found.parameters.items()},
        activations={
            found.denoiser: int(unet * _BESIDE) + beside,
            found.decoder: int(decoder * _BESIDE) + beside,
        },
        trace=found.trace_bytes(rows, columns, steps or found.steps, trace, item),
        free=free_memory(target),
        device=str(target),
        plan=plan,
    )


def memory_options(
    model: str | Path, estimate: MemoryEstimate, **size: Any
) -> list[MemoryOption]:
    """Return the settings that would take less than an estimate, the best one first.

    Parameters
    ----------
    model
        As in `estimate_memory`.
    estimate
        What it takes now. Each option is one more setting on top of its plan.
    **size
        The height, width, steps and trace that were estimated.
    """
    on_cpu = torch.device(estimate.device).type == "cpu"
    half = "bfloat16" if on_cpu else "float16"
    plan = estimate.plan
    slow = "slow on a CPU; maps change by about a thousandth"
    changes: list[tuple[str, str, dict[str, Any]]] = [
        (f"Half precision ({half})", slow if on_cpu else "faster", {"dtype": half}),
        ("Decode in tiles", "pixels change slightly", {"vae_tiling": True}),
        ("Attention in slices", "slower", {"attention_slicing": True}),
    ]
    if not on_cpu:
        price = "slower by copying the weights for each image"
        changes.append(("CPU offload", price, {"offload": True}))
    options = []
    for name, price, change in changes:
        changed = replace(plan, **change)
        found = estimate_memory(model, device=estimate.device, plan=changed, **size)
        if found.needed < estimate.needed:
            options.append(MemoryOption(name, price, found))
    return sorted(options, key=lambda option: option.estimate.needed)


def free_memory(device: torch.device | str) -> int:
    """Return the bytes that a device has free, counting what torch holds unused."""
    device = torch.device(device)
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)
    if device.type == "mps":
        limit = torch.mps.recommended_max_memory()
        return int(limit - torch.mps.current_allocated_memory())
    return min(int(psutil.virtual_memory().available), _group_free())


def _group_free() -> int:
    """Return what the container's limit leaves (Linux, cgroup v2)."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(
            line.split() for line in (group / "memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):  # none, or "max"
        return 2**63 - 1
    return max(0, limit - used + int(stat.get("inactive_file", 0)))


def _path(model: str | Path) -> Path:
    found = find_model(str(model))
    if found is None:
        raise ModelError(
            f"{model} is not on this computer: get it first (`napari-ovam models get "
            f"{model}`)"
        )
    if found.problem:
        raise ModelError(found.problem)
    return found.path
