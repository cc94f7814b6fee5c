"""Record traces around any call of a pipeline, by hooks that leave nothing behind."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from napari_ovam.attention.trace import Branch, Calls, Layers, Trace, block_of
from napari_ovam.attention.trace_settings import TraceSettings
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.architectures.attention_layers import (
    AttentionLayer,
    check_keys,
    check_plain,
    copy_keys,
    find_layers,
)
from napari_ovam.diffusion.architectures.attention_tap import tap_attention
from napari_ovam.diffusion.architectures.base import argument
from napari_ovam.diffusion.architectures.joint import (
    JointArchitecture,
    find_joint_layers,
)
from napari_ovam.diffusion.calls import (
    Call,
    GuidanceError,
    Run,
    Step,
    Texts,
    expected_totals,
)
from napari_ovam.diffusion.joint.kept_inputs import KeptInputs
from napari_ovam.diffusion.joint.replay import is_replaying, offer_replay
from napari_ovam.diffusion.kept import Kept, Wanted
from napari_ovam.diffusion.weights_hash import text_encoder_hash

if TYPE_CHECKING:
    from napari_ovam.attention.shown_calls import Meeting
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
    meeting: Meeting | None = None,
    check: Check | None = None,
) -> Iterator[Recorder]:
    """Record what the cross-attention asks in every call of `pipe` inside the block.

    The images are the same, bit for bit, as without recording, and no hook stays
    behind; a compiled model runs as it was before it was compiled. What is kept stays
    on the model's device until the traces are moved.

    The defaults keep everything, as OVAM published it; those of `TraceSettings`, for
    `generate` and `trace_image`, keep what was measured to be worth it.

    Parameters
    ----------
    pipe
        The pipeline that is called in the block: text-to-image, image-to-image,
        inpainting or ControlNet, of an architecture in
        `napari_ovam.diffusion.architectures`.
        Calls of its UNet or transformer alone are recorded as well.
    branch
        The half of the guidance batch to keep. "uncond" is OVAM's, "cond" DAAM's.
        Which one that is, is told by the texts: by what `pipe.encode_prompt` returned
        in the block, or else by the empty text. Halves may be swapped or be shown in
        two calls a step. Without guidance there is one half, kept whatever is asked
        and stored as "cond".
    layers
        Names of layers, and integers, which stand for all layers whose grid has that
        many cells along its longer side; or "fine", those of `Trace.fine`. None keeps
        all.
    calls
        Numbers of the denoising calls to keep, from 0; negative ones count from the
        last (-1); or "quarters", those a quarter, half and three quarters of the way.
        None keeps all.
    dtype
        What to store queries and weights in; None keeps the model's.
    middle
        Record the middle block as well, where there is one.
    self_attention
        Record self-attention as well, in the transformer blocks of the kept layers.
    meeting
        What of an image meets what of a text (`Trace.with_meeting`); None takes what
        suits the model. Without joint attention there is "keys" only.
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
        exist, or the queries overflow `dtype`; if something skips, replaces or changes
        a layer, or which text is whose is not known (`GuidanceError`).

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
    kept = TraceSettings(
        branch, cast("Layers", layers), cast("Calls", calls), meeting=meeting
    )
    architecture = pipeline_architecture(pipe)
    if isinstance(architecture, JointArchitecture):
        found = find_joint_layers(architecture, pipe, self_attention)
        offer_replay(pipe)
    else:
        found = find_layers(architecture, pipe, middle, self_attention)
        if meeting == "outputs":
            raise ValueError("there is no joint attention: give meeting='keys' or None")
    wanted = Wanted(branch, kept.layers, kept.calls, tuple(found), meeting)
    hooks = _Hooks(pipe, architecture, wanted, dtype, check or (lambda: None))
    recorder = Recorder()
    with ExitStack() as stack:
        hooks.register(stack)
        yield recorder
    model = text_encoder_hash(pipe)
    factors = architecture.frames(pipe), architecture.pixels(pipe)
    recorder.traces = [
        trace for run in hooks.runs for trace in run.make_traces(model, *factors)
    ]


@dataclass
class _Hooks:
    """Listens to the model, and hands on what is to be kept of it."""

    pipe: Any
    architecture: Architecture
    wanted: Wanted
    dtype: torch.dtype | None
    check: Check
    runs: list[Kept] = field(default_factory=list)
    rows: list[int] | None = None  # of the batch, to be kept from the present call
    is_asking: bool = False  # a layer, on our own account
    # What `to_k` of tapped layers read, until the keys that were met are compared.
    texts_read: dict[str, Tensor] = field(default_factory=dict)

    def register(self, stack: ExitStack) -> None:
        """Register all hooks; the stack takes them away again."""
        self.texts = Texts(self.architecture, self.pipe)
        self.texts.listen(stack)
        # Hooks of layers do not run in a graph that was compiled before.
        stack.enter_context(torch.compiler.set_stance("force_eager"))

        def add(handle: Any) -> None:
            stack.callback(handle.remove)

        model = self.architecture.denoiser(self.pipe)
        add(model.register_forward_pre_hook(self._before_model, with_kwargs=True))
        add(model.register_forward_hook(self._after_model))
        if isinstance(self.architecture, JointArchitecture):
            for layer in self.wanted.found:
                after = partial(self._after_block, layer)
                add(layer.outer.register_forward_hook(after))
            return
        for outer in {la.outer for la in self.wanted.found} - {model}:
            here = [la.name for la in self.wanted.found if la.outer is outer]
            before = partial(self._before_outer, here)
            add(outer.register_forward_pre_hook(before, with_kwargs=True))
        for layer in self.wanted.found:
            self._listen(layer, add)

    def _listen(self, layer: AttentionLayer, add: Callable[[Any], None]) -> None:
        attention = layer.attention
        if layer.is_tapped:
            for handle in tap_attention(attention, partial(self._see, layer)):
                add(handle)
        else:
            for part in layer.parts:
                keep = partial(self._keep, layer, part)
                add(getattr(attention, part).register_forward_hook(keep))
        if not layer.is_self:
            keys = getattr(attention, layer.text_keys)
            add(keys.register_forward_hook(partial(self._keep_keys, layer)))
        if not (layer.is_tapped or layer.is_plain):
            check = partial(self._check_plain, layer)
            add(attention.register_forward_hook(check, with_kwargs=True))

    def _before_model(self, model: Any, args: Any, kwargs: Any) -> None:
        if is_replaying():
            return
        self.check()
        of = self.architecture
        places = of.latents_place, of.step_place, of.text_place
        given = (argument(args, kwargs, *place) for place in places)
        sample, step, text = of.shown(*given)
        call = Call(sample, text, Step(step), self.texts.encodings)
        self.texts.note_call()
        kept = self.runs[-1] if self.runs else None
        again = kept is not None and call.repeats(kept.run.last)
        if kept is not None and again:
            self._take_again(kept.run, call)
        else:
            kept = self._take_next(kept, call)
        self.rows = kept.begin_call(again=again)
        if isinstance(kept, KeptInputs):
            if self.rows is not None:
                kept.keep_inputs(args, kwargs, self.rows)
        else:
            shape = self.architecture.latent_shape(args, kwargs)
            kept.note_latents(shape, model, self.architecture.patch(self.pipe))

    def _take_next(self, kept: Kept | None, call: Call) -> Kept:
        """Take a call as the next of its run, or as the first of another one."""
        last = None if kept is None else kept.run.last
        if last and last.text is call.text and last.sample.shape == call.sample.shape:
            call.uncond, call.cond = last.uncond, last.cond
        else:
            self.texts.assign(call)
        if kept is not None and kept.run.goes_on_with(call):
            run = kept.run
            run.last, run.count, run.passes = call, run.count + 1, 1
        else:
            run = Run(call, expected_totals(self.pipe, call.step))
            kept = Kept(run, self.wanted)
            if isinstance(self.architecture, JointArchitecture):
                how = {"architecture": self.architecture, "pipe": self.pipe}
                kept = KeptInputs(run, self.wanted, dtype=self.dtype, **how)
            self.runs.append(kept)
        if call.uncond:
            run.guided = True
        else:
            run.alone.add(run.count - 1)
        return kept

    def _take_again(self, run: Run, call: Call) -> None:
        """Take a call that shows the latents of the last one with another text."""
        if run.passes > 1 or run.last.uncond:
            raise GuidanceError(
                "the model is shown the same latents more than twice at one time step: "
                "guidance in more than two parts cannot be recorded. Switch it off"
            )
        self.texts.tell_apart(run.last, call)
        run.last, run.passes, run.guided = call, 2, True
        run.alone.discard(run.count - 1)

    def _after_block(
        self, layer: AttentionLayer, _module: Any, _args: Any, output: Any
    ) -> None:
        if is_replaying():
            return
        self.check()
        kept = self.runs[-1]
        if self.rows is not None and layer == kept.layers[-1]:
            cast("KeptInputs", kept).keep_probe(output, self.rows)

    def _after_model(self, *_: Any) -> None:
        if is_replaying():
            return
        self.check()
        self.runs[-1].end_call()
        self.rows = None

    def _before_outer(
        self, names: list[str], _module: Any, args: Any, kwargs: Any
    ) -> None:
        self.check()
        hidden_states = argument(args, kwargs, 0, "hidden_states")
        if hidden_states.ndim != 4:
            raise ValueError(
                f"{names[0]} works on a tensor of shape {tuple(hidden_states.shape)}, "
                "not on a grid: this model cannot be recorded"
            )
        self.runs[-1].note_grid(names, tuple(hidden_states.shape[2:]))

    def _keep(
        self, layer: AttentionLayer, part: str, _module: Any, _args: Any, output: Tensor
    ) -> None:
        self.check()
        if self._is_wanted(layer):
            by_head = output.unflatten(-1, (layer.attention.heads, -1)).transpose(1, 2)
            self.runs[-1].store(layer, part, by_head, self.rows or [], self.dtype)

    def _see(
        self, layer: AttentionLayer, queries: Tensor, keys: Tensor, scale: float
    ) -> None:
        self.check()
        if not self._is_wanted(layer):
            return
        kept = self.runs[-1]
        if (rows := self.texts_read.pop(layer.name, None)) is not None:
            made = kept.keys[layer.name]
            check_keys(layer, made, rows, keys)
            text_scale = self.architecture.text_scale(self.pipe, layer.name)
            if text_scale is not None:
                made["key_weight"] = made["key_weight"] * text_scale.detach()
        kept.scales[layer.name] = scale
        for part, tensor in zip(layer.parts, (queries, keys), strict=False):
            kept.store(layer, part, tensor, self.rows or [], self.dtype)

    def _keep_keys(
        self, layer: AttentionLayer, _module: Any, args: Any, keys: Tensor
    ) -> None:
        kept = self.runs[-1]
        if layer.name in kept.keys or not self._is_wanted(layer):
            return
        with self._asking():
            kept.keys[layer.name] = copy_keys(layer, args[0], keys, self.dtype)
        if layer.is_tapped:
            self.texts_read[layer.name] = args[0][:1].detach()

    def _check_plain(
        self,
        layer: AttentionLayer,
        _module: Any,
        args: Any,
        kwargs: Any,
        output: Tensor,
    ) -> None:
        if self._is_wanted(layer):
            with self._asking():
                check_plain(layer, args, kwargs, output)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Ask a layer on our own account: that is not recorded."""
        self.is_asking = True
        try:
            yield
        finally:
            self.is_asking = False

    def _is_wanted(self, layer: AttentionLayer) -> bool:
        """Tell whether what a layer does now is to be kept."""
        if self.is_asking or self.rows is None:
            return False
        kept, layers = self.runs[-1], self.wanted.layers
        if kept.names:
            return layer.name in kept.names
        if layers is None or layers == "fine":
            return True  # until the grids of all are known
        name = f"{block_of(layer.name)}.attn2" if layer.is_self else layer.name
        return name in layers or max(kept.grids[layer.name]) in layers
