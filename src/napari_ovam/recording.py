"""Record traces around any call of a pipeline, by hooks that leave nothing behind."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from napari_ovam.trace import (
    Branch,
    LayerTrace,
    SelfTrace,
    Trace,
    TraceSettings,
    block_of,
    choose_layers,
    text_encoder_hash,
)

Check = Callable[[], None]


class Recorder:
    """Holds what `record` recorded.

    Attributes
    ----------
    traces
        After the block: one trace an image, ordered by pipeline call, then by place
        in the batch. Empty before, and if the block ended with an error.
    """

    def __init__(self) -> None:
        self.traces: list[Trace] = []


@contextmanager
def record(
    pipe: Any,
    *,
    branch: Branch = "uncond",
    layers: Iterable[str | int] | None = None,
    calls: Iterable[int] | None = None,
    dtype: torch.dtype | None = None,
    middle: bool = False,
    self_attention: bool = False,
    check: Check | None = None,
) -> Iterator[Recorder]:
    """Record what the cross-attention asks in every call of `pipe` inside the block.

    The images are the same, bit for bit, as without recording, and no hook stays
    behind. What is kept stays on the model's device until the traces are moved.

    Parameters
    ----------
    pipe
        The pipeline that is called in the block: text-to-image, image-to-image or
        inpainting. Calls of its UNet alone are recorded as well.
    branch
        The half of the guidance batch to keep. "uncond" is OVAM's, "cond" DAAM's.
        Without guidance there is one half, kept whatever is asked and stored as
        "cond".
    layers
        Names of layers, and integers, which stand for all layers whose grid has that
        many cells along its longer side. None keeps all.
    calls
        Numbers of the denoising calls to keep, from 0; negative ones count from the
        last (-1). None keeps all.
    dtype
        What to store queries and weights in; None keeps the model's.
    middle
        Record the middle block as well.
    self_attention
        Record self-attention as well, in the transformer blocks of the kept layers.
    check
        Called several times in every call of the UNet; may raise to end it.

    Yields
    ------
    Recorder
        Its `traces` are filled when the block ends without an error.

    Raises
    ------
    ValueError
        If the pipeline has no cross-attention of the kind that can be recorded, or a
        layer or call that is asked for does not exist.

    Examples
    --------
    >>> with record(pipe) as recorder:
    ...     image = pipe("a cat and a hat").images[0]
    >>> trace = recorder.traces[0]
    """
    TraceSettings(branch=branch)
    hooks = _Hooks(
        pipe,
        branch,
        None if layers is None else tuple(layers),
        None if calls is None else tuple(operator.index(call) for call in calls),
        dtype,
        check or (lambda: None),
        _find_layers(pipe, middle, self_attention),
    )
    recorder = Recorder()
    with ExitStack() as stack:
        hooks.register(stack)
        yield recorder
    recorder.traces = list(hooks.traces())


@dataclass(frozen=True)
class _Layer:
    """An attention layer and the module around it that sees the image as a grid."""

    name: str
    attention: Any
    outer: torch.nn.Module
    is_self: bool

    @property
    def parts(self) -> tuple[str, ...]:
        return ("to_q", "to_k") if self.is_self else ("to_q",)


@dataclass
class _Run:
    """One call of the pipeline: what is kept of it.

    `stored[layer, part]` maps the number of a denoising call to a tensor (images,
    heads, cells, head_dim).
    """

    step: _Step
    size: tuple[int, int]
    images: int
    guided: bool
    calls: int = 0
    kept: list[int] = field(default_factory=list)
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)
    keys: dict[str, tuple[Tensor, Tensor | None]] = field(default_factory=dict)
    stored: dict[tuple[str, str], dict[int, Tensor]] = field(default_factory=dict)


class _Step:
    """A time step, and whether it follows another in one call of a pipeline.

    A pipeline walks through one tensor of time steps: what it hands to the UNet are
    views of one storage, in order. Values alone would not do: PNDM and Heun repeat
    theirs, and after a cancelled call those of the next may go on falling.
    """

    def __init__(self, timestep: Any) -> None:
        self.value = timestep  # keeps the storage alive: its address stays taken

    @property
    def remaining(self) -> int | None:
        """Steps from here to the end of the schedule, None where it is not known."""
        if not isinstance(self.value, Tensor):
            return None
        offset = int(self.value.storage_offset())
        count = self.value.untyped_storage().nbytes() // self.value.element_size()
        return count - offset if count > 1 else None

    def follows(self, other: _Step) -> bool:
        new, old = self.value, other.value
        if self.remaining is None or other.remaining is None:
            return float(_first(new)) < float(_first(old))
        same = new.untyped_storage().data_ptr() == old.untyped_storage().data_ptr()
        return bool(same and new.storage_offset() > old.storage_offset())


@dataclass
class _Hooks:
    pipe: Any
    branch: Branch
    layers: tuple[str | int, ...] | None
    calls: tuple[int, ...] | None
    dtype: torch.dtype | None
    check: Check
    found: list[_Layer]
    runs: list[_Run] = field(default_factory=list)
    rows: slice | None = None  # of the batch, to be kept from the present call

    def __post_init__(self) -> None:
        for what in ("calls", "layers"):
            if getattr(self, what) == ():
                raise ValueError(f"{what} is empty: name at least one, or give None")
        names = [la.name for la in self.found if not la.is_self]
        for name in self.layers or ():
            if isinstance(name, str) and name not in names:
                raise ValueError(
                    f"there is no layer {name!r} to record: give names of {names}, or "
                    "middle=True for the middle block"
                )
        # The last calls are known at the end only: until then as many are held.
        self.held = max([-call for call in self.calls or () if call < 0], default=0)

    def register(self, stack: ExitStack) -> None:
        """Register all hooks; the stack takes them away again."""

        def add(handle: Any) -> None:
            stack.callback(handle.remove)

        unet = _unet(self.pipe)
        add(unet.register_forward_pre_hook(self._before_unet, with_kwargs=True))
        add(unet.register_forward_hook(self._after_unet))
        for outer in {la.outer for la in self.found}:
            here = [la.name for la in self.found if la.outer is outer]
            add(
                outer.register_forward_pre_hook(
                    lambda _module, args, kwargs, here=here: self._before_outer(
                        here, _argument(args, kwargs, 0, "hidden_states")
                    ),
                    with_kwargs=True,
                )
            )
        for layer in self.found:
            for part in layer.parts:
                add(
                    getattr(layer.attention, part).register_forward_hook(
                        lambda _module, _args, output, layer=layer, part=part: (
                            self._keep(layer, part, output)
                        )
                    )
                )

    def _before_unet(self, _module: Any, args: Any, kwargs: Any) -> None:
        self.check()
        sample = _argument(args, kwargs, 0, "sample")
        step = _Step(_argument(args, kwargs, 1, "timestep"))
        batch, size = sample.shape[0], tuple(sample.shape[-2:])
        run = self.runs[-1] if self.runs else None
        # A pipeline may switch its guidance off half-way: its batch halves.
        if (
            run is None
            or not step.follows(run.step)
            or size != run.size
            or batch
            not in ({run.images, 2 * run.images} if run.guided else {run.images})
        ):
            guided = _is_guided(self.pipe, sample)
            run = _Run(step, size, batch // 2 if guided else batch, guided)
            self._check_calls(step.remaining)
            self.runs.append(run)
        run.step = step
        call, run.calls = run.calls, run.calls + 1
        self.rows = self._wanted_rows(run, batch, call)
        if self.rows is not None:
            run.kept.append(call)
        self._forget(run)

    def _wanted_rows(self, run: _Run, batch: int, call: int) -> slice | None:
        if self.calls is not None and call not in self.calls and not self.held:
            return None
        if not run.guided:
            return slice(0, batch)
        if self.branch == "uncond":
            return slice(0, run.images) if batch == 2 * run.images else None
        return slice(batch - run.images, batch)

    def _check_calls(self, total: int | None) -> None:
        for call in self.calls or ():
            if total is not None and not -total <= call < total:
                raise ValueError(
                    f"call {call} is to be recorded and the pipeline makes {total}, "
                    f"numbered 0 to {total - 1}"
                )

    def _forget(self, run: _Run) -> None:
        """Drop the calls that are neither wanted nor among the last to be held."""
        if not self.held:
            return
        for call in list(run.kept):
            if call < run.calls - self.held and call not in (self.calls or ()):
                run.kept.remove(call)
                for tensors in run.stored.values():
                    tensors.pop(call, None)

    def _after_unet(self, *_: Any) -> None:
        self.check()
        run = self.runs[-1]
        if run.calls == 1 and self.layers is not None:
            self._chosen(run)  # so that a wrong one is known before the last step
        self.rows = None

    def _before_outer(self, names: list[str], hidden_states: Tensor) -> None:
        self.check()
        if hidden_states.ndim != 4:
            raise ValueError(
                f"{names[0]} works on a tensor of shape {tuple(hidden_states.shape)}, "
                "not on a grid: this UNet cannot be recorded"
            )
        grid = (int(hidden_states.shape[2]), int(hidden_states.shape[3]))
        self.runs[-1].grids.update(dict.fromkeys(names, grid))

    def _keep(self, layer: _Layer, part: str, output: Tensor) -> None:
        self.check()
        run = self.runs[-1]
        if self.rows is None or not self._is_wanted(layer, run):
            return
        heads = layer.attention.heads
        # A copy of these rows only: a view would keep the whole batch in memory.
        tensor = output.detach()[self.rows].unflatten(-1, (heads, -1)).transpose(1, 2)
        dtype = self.dtype or tensor.dtype
        run.stored.setdefault((layer.name, part), {})[run.calls - 1] = tensor.to(
            dtype, copy=True, memory_format=torch.contiguous_format
        )
        if not layer.is_self and layer.name not in run.keys:
            run.keys[layer.name] = _key_weight(layer.attention.to_k, self.dtype)

    def _is_wanted(self, layer: _Layer, run: _Run) -> bool:
        if self.layers is None:
            return True
        name = f"{block_of(layer.name)}.attn2"
        return name in self.layers or max(run.grids[layer.name]) in self.layers

    def _chosen(self, run: _Run) -> list[_Layer]:
        """Return the layers to be kept.

        Self-attention is kept in the transformer blocks of the kept cross-attention.
        """
        grids = {la.name: run.grids[la.name] for la in self.found if not la.is_self}
        names = choose_layers(self.layers, grids) if self.layers else set(grids)
        blocks = {block_of(name) for name in names}
        return [la for la in self.found if block_of(la.name) in blocks]

    def traces(self) -> Iterator[Trace]:
        """Make the traces; what was stored is given up layer by layer."""
        model = text_encoder_hash(self.pipe)
        factor = getattr(self.pipe, "vae_scale_factor", 8)
        for run in self.runs:
            self._check_calls(run.calls)
            wanted = {call % run.calls for call in self.calls or range(run.calls)}
            calls = [call for call in run.kept if call in wanted]
            if not calls:
                raise ValueError(
                    f"none of the calls {self.calls} had the branch {self.branch!r}: "
                    "guidance was off by then; record 'cond'"
                )
            layers: list[list[LayerTrace]] = [[] for _ in range(run.images)]
            self_layers: list[list[SelfTrace]] = [[] for _ in range(run.images)]
            for layer in self._chosen(run):
                tensors = [self._pop(run, layer, part, calls) for part in layer.parts]
                name, grid = layer.name, run.grids[layer.name]
                scale = float(layer.attention.scale)
                for image in range(run.images):
                    parts = [torch.stack([t[image] for t in ts]) for ts in tensors]
                    if layer.is_self:
                        self_layers[image].append(
                            SelfTrace(name, grid, parts[0], parts[1], scale)
                        )
                    else:
                        weight, bias = run.keys[name]
                        layers[image].append(
                            LayerTrace(name, grid, parts[0], weight, scale, bias)
                        )
            for image in range(run.images):
                yield Trace(
                    layers=tuple(layers[image]),
                    image_size=(run.size[0] * factor, run.size[1] * factor),
                    model=model,
                    branch=self.branch if run.guided else "cond",
                    calls=tuple(calls),
                    self_layers=tuple(self_layers[image]),
                )

    def _pop(
        self, run: _Run, layer: _Layer, part: str, calls: list[int]
    ) -> list[Tensor]:
        stored = run.stored.pop((layer.name, part), {})
        if missing := [call for call in calls if call not in stored]:
            raise ValueError(
                f"{layer.name}.{part} did not run in call {missing[0]}: are its "
                "projections fused? Call pipe.unfuse_qkv_projections() first"
            )
        return [stored[call] for call in calls]


def _unet(pipe: Any) -> Any:
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise ValueError(
            f"{type(pipe).__name__} has no UNet: traces can be recorded of Stable "
            "Diffusion 1.x and 2.x"
        )
    return getattr(unet, "_orig_mod", unet)  # what torch.compile wraps


def _find_layers(pipe: Any, middle: bool, self_attention: bool) -> list[_Layer]:
    unet = _unet(pipe)
    modules = dict(unet.named_modules())
    blocks = ["down_blocks", *["mid_block"] * middle, "up_blocks"]
    found = []
    for name in (n for block in blocks for n in modules if n.startswith(f"{block}.")):
        module = modules[name]
        outer, _, inner = name.rpartition(".transformer_blocks.")
        kind = inner.rpartition(".")[2]
        if not outer or kind not in ("attn1", "attn2"):
            continue
        # In blocks with cross-attention only, attn1 reads the text too.
        is_self = kind == "attn1"
        if module.is_cross_attention == is_self or (is_self and not self_attention):
            continue
        if not is_self and module.norm_cross is not None:
            raise ValueError(
                f"{name} normalises the text before it reads it (cross_attention_norm)"
                ": this UNet cannot be recorded"
            )
        found.append(_Layer(name, module, modules[outer], is_self))
    if all(layer.is_self for layer in found):
        raise ValueError(
            f"{type(pipe).__name__}'s UNet has no cross-attention layer (attn2) "
            "that could be recorded"
        )
    return found


def _is_guided(pipe: Any, sample: Tensor) -> bool:
    """Tell whether a batch is made of an unconditional and a conditional half.

    A pipeline with guidance shows the UNet all latents twice. The pipeline's own word
    alone would not do: it may stem from an earlier call, while the UNet is now called
    alone.
    """
    if len(sample) % 2 or not getattr(pipe, "do_classifier_free_guidance", True):
        return False
    first, second = sample.nan_to_num().chunk(2)
    return torch.equal(first, second)


@torch.no_grad()
def _key_weight(to_k: Any, dtype: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
    """Copy the weight and bias that the keys are made with just now."""
    weight, bias = to_k.weight, to_k.bias
    # A LoRA that peft put around the layer, unless it is merged or switched off.
    if hasattr(to_k, "get_delta_weight") and not (to_k.merged or to_k.disable_adapters):
        for adapter in to_k.active_adapters:
            if adapter in to_k.lora_A:
                weight = weight + to_k.get_delta_weight(adapter)

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype or tensor.dtype, copy=True)

    return copy(weight), None if bias is None else copy(bias)


def _argument(args: Any, kwargs: Any, place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs[name]


def _first(value: Any) -> Any:
    return value.flatten()[0] if isinstance(value, Tensor) else value
