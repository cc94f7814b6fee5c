"""Record traces around any call of a pipeline, by hooks that leave nothing behind."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from napari_ovam.attention.trace import (
    Branch,
    Calls,
    Layers,
    LayerTrace,
    SelfTrace,
    Trace,
    TraceSettings,
    block_of,
    choose_layers,
    fine_layers,
    quarter_calls,
)
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.architectures.attention_layers import (
    AttentionLayer,
    check_range,
    find_layers,
    key_weight,
)
from napari_ovam.diffusion.phrases import text_encoder_hash

if TYPE_CHECKING:
    from napari_ovam.diffusion.architectures.base import Architecture

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
    layers: Iterable[str | int] | Layers | None = None,
    calls: Iterable[int] | Calls | None = None,
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
        The pipeline that is called in the block: text-to-image, image-to-image,
        inpainting or ControlNet, of an architecture in
        `napari_ovam.diffusion.architectures`.
        Calls of its UNet or transformer alone are recorded as well.
    branch
        The half of the guidance batch to keep. "uncond" is OVAM's, "cond" DAAM's.
        Without guidance there is one half, kept whatever is asked and stored as
        "cond".
    layers
        Names of layers, and integers, which stand for all layers whose grid has that
        many cells along its longer side; or "fine", those of `Trace.fine`. None keeps
        all.
    calls
        Numbers of the denoising calls to keep, from 0; negative ones count from the
        last (-1); or "quarters", those a quarter, half and three quarters of the way,
        where the number of calls is known in advance. None keeps all.
    dtype
        What to store queries and weights in; None keeps the model's.
    middle
        Record the middle block as well, where there is one.
    self_attention
        Record self-attention as well, in the transformer blocks of the kept layers.
    check
        Called several times in every call of the model; may raise to end it.

    Yields
    ------
    Recorder
        Its `traces` are filled when the block ends without an error.

    Raises
    ------
    ValueError
        If the pipeline is not supported (`ModelError`) or has no cross-attention of
        the kind that can be recorded, a layer or call that is asked for does not
        exist, or the queries overflow `dtype`.

    Examples
    --------
    >>> with record(pipe) as recorder:
    ...     image = pipe("a cat and a hat").images[0]
    >>> trace = recorder.traces[0]
    """
    if not (layers is None or isinstance(layers, str)):
        layers = tuple(layers)
    if not (calls is None or isinstance(calls, str)):
        calls = tuple(operator.index(call) for call in calls)
    # It refuses other words than these.
    kept = TraceSettings(branch, cast("Layers", layers), cast("Calls", calls))
    architecture = pipeline_architecture(pipe)
    hooks = _Hooks(
        pipe,
        architecture,
        branch,
        kept.layers,
        kept.calls,
        dtype,
        check or (lambda: None),
        find_layers(architecture, pipe, middle, self_attention),
    )
    recorder = Recorder()
    with ExitStack() as stack:
        hooks.register(stack)
        yield recorder
    recorder.traces = list(hooks.traces())


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
    wanted: tuple[int, ...] | None  # calls; None for all
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
    architecture: Architecture
    branch: Branch
    layers: tuple[str | int, ...] | Layers | None
    calls: tuple[int, ...] | Calls | None
    dtype: torch.dtype | None
    check: Check
    found: list[AttentionLayer]
    runs: list[_Run] = field(default_factory=list)
    rows: slice | None = None  # of the batch, to be kept from the present call

    def __post_init__(self) -> None:
        for what in ("calls", "layers"):
            if getattr(self, what) == ():
                raise ValueError(f"{what} is empty: name at least one, or give None")
        names = [la.name for la in self.found if not la.is_self]
        for name in () if self.layers == "fine" else self.layers or ():
            if isinstance(name, str) and name not in names:
                raise ValueError(
                    f"there is no layer {name!r} to record: give names of {names}, or "
                    "middle=True for the middle block"
                )
        # The last calls are known at the end only: until then as many are held.
        calls = () if self.calls == "quarters" else self.calls or ()
        self.held = max([-call for call in calls if call < 0], default=0)

    def register(self, stack: ExitStack) -> None:
        """Register all hooks; the stack takes them away again."""

        def add(handle: Any) -> None:
            stack.callback(handle.remove)

        model = self.architecture.denoiser(self.pipe)
        add(model.register_forward_pre_hook(self._before_model, with_kwargs=True))
        add(model.register_forward_hook(self._after_model))
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

    def _before_model(self, _module: Any, args: Any, kwargs: Any) -> None:
        self.check()
        sample = _argument(args, kwargs, *self.architecture.latents_place)
        step = _Step(_argument(args, kwargs, *self.architecture.step_place))
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
            guided = self.architecture.is_guided(self.pipe, sample)
            run = _Run(
                step,
                size,
                batch // 2 if guided else batch,
                guided,
                self._wanted_calls(step.remaining),
            )
            self._check_calls(run, step.remaining)
            self.runs.append(run)
        run.step = step
        call, run.calls = run.calls, run.calls + 1
        self.rows = self._wanted_rows(run, batch, call)
        if self.rows is not None:
            run.kept.append(call)
        self._forget(run)

    def _wanted_rows(self, run: _Run, batch: int, call: int) -> slice | None:
        if run.wanted is not None and call not in run.wanted and not self.held:
            return None
        if not run.guided:
            return slice(0, batch)
        if self.branch == "uncond":
            return slice(0, run.images) if batch == 2 * run.images else None
        return slice(batch - run.images, batch)

    def _wanted_calls(self, total: int | None) -> tuple[int, ...] | None:
        if self.calls != "quarters":
            return self.calls
        return None if total is None else quarter_calls(total)

    def _check_calls(self, run: _Run, total: int | None) -> None:
        for call in run.wanted or ():
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
            if call < run.calls - self.held and call not in (run.wanted or ()):
                run.kept.remove(call)
                for tensors in run.stored.values():
                    tensors.pop(call, None)

    def _after_model(self, *_: Any) -> None:
        self.check()
        run = self.runs[-1]
        if run.calls == 1 and self.layers is not None:
            # So that a wrong one is known before the last step, and that of the first
            # call, when the grids were not known yet, no more is held than wanted.
            names = {la.name for la in self._chosen(run)}
            run.stored = {k: v for k, v in run.stored.items() if k[0] in names}
        self.rows = None

    def _before_outer(self, names: list[str], hidden_states: Tensor) -> None:
        self.check()
        if hidden_states.ndim != 4:
            raise ValueError(
                f"{names[0]} works on a tensor of shape {tuple(hidden_states.shape)}, "
                "not on a grid: this model cannot be recorded"
            )
        patch = self.architecture.patch(self.pipe)
        grid = (hidden_states.shape[2] // patch, hidden_states.shape[3] // patch)
        self.runs[-1].grids.update(dict.fromkeys(names, grid))

    def _keep(self, layer: AttentionLayer, part: str, output: Tensor) -> None:
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
            weight, bias = key_weight(layer.attention.to_k, output)
            run.keys[layer.name] = (
                weight.to(dtype),
                None if bias is None else bias.to(dtype),
            )

    def _is_wanted(self, layer: AttentionLayer, run: _Run) -> bool:
        if self.layers is None:
            return True
        name = f"{block_of(layer.name)}.attn2"
        if self.layers == "fine":
            return run.calls == 1 or name in fine_layers(self._cross_grids(run))
        return name in self.layers or max(run.grids[layer.name]) in self.layers

    def _cross_grids(self, run: _Run) -> dict[str, tuple[int, int]]:
        return {la.name: run.grids[la.name] for la in self.found if not la.is_self}

    def _chosen(self, run: _Run) -> list[AttentionLayer]:
        """Return the layers to be kept.

        Self-attention is kept in the transformer blocks of the kept cross-attention.
        """
        grids = self._cross_grids(run)
        if self.layers == "fine":
            names = fine_layers(grids)
        else:
            names = choose_layers(self.layers, grids) if self.layers else set(grids)
        blocks = {block_of(name) for name in names}
        return [la for la in self.found if block_of(la.name) in blocks]

    def traces(self) -> Iterator[Trace]:
        """Make the traces; what was stored is given up layer by layer."""
        model = text_encoder_hash(self.pipe)
        factor = getattr(self.pipe, "vae_scale_factor", 8)
        for run in self.runs:
            self._check_calls(run, run.calls)
            wanted = {call % run.calls for call in run.wanted or range(run.calls)}
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
                    for part in parts:
                        check_range(name, part)
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
        self, run: _Run, layer: AttentionLayer, part: str, calls: list[int]
    ) -> list[Tensor]:
        stored = run.stored.pop((layer.name, part), {})
        if missing := [call for call in calls if call not in stored]:
            raise ValueError(
                f"{layer.name}.{part} did not run in call {missing[0]}: are its "
                "projections fused? Call pipe.unfuse_qkv_projections() first"
            )
        return [stored[call] for call in calls]


def _argument(args: Any, kwargs: Any, place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs[name]


def _first(value: Any) -> Any:
    return value.flatten()[0] if isinstance(value, Tensor) else value
