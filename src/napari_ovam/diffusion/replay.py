"""A model with joint attention that is asked afterwards: see `attention.streams`."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from napari_ovam.attention.layer_traces import ModelMismatchError
from napari_ovam.attention.shown_calls import Block, Meeting, offer_model
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.architectures.joint import JointArchitecture
from napari_ovam.diffusion.weights_hash import text_encoder_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ATTEND = functional.scaled_dot_product_attention
_PROBED = 32  # cells
_lock = threading.RLock()
_here = threading.local()


def is_replaying() -> bool:
    """Tell whether what a model does in this thread is a replay of ours."""
    return getattr(_here, "replaying", False)


def offer_replay(pipe: Any) -> None:
    """Note a pipeline whose traces may ask it, if it is one of joint attention."""
    if isinstance(pipeline_architecture(pipe), JointArchitecture):
        offer_model(pipe, JointReplay)


class _Shown(Exception):
    """Ends a call of the model behind the last block that is asked."""


class _Tap(TorchFunctionMode):
    """Hands the attention of this thread to `attend(call, query, key, value)`."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not _ATTEND:
            return func(*args, **(kwargs or {}))
        names = "query", "key", "value", "attn_mask", "dropout_p", "is_causal"
        given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
        query, key, value = (given.pop(name) for name in names[:3])
        return self._attend(partial(_ATTEND, **given), query, key, value)


class JointReplay:
    """A pipeline with joint attention, as `attention.streams` asks it."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = ref(pipe)
        self.architecture = cast("JointArchitecture", pipeline_architecture(pipe))

    @property
    def pipe(self) -> Any:
        """The pipeline; it raises `ModelMismatchError` once that is gone."""
        if (pipe := self._pipe()) is None:
            raise ModelMismatchError("the model was given up: load it again")
        return pipe

    @property
    def model(self) -> Any:
        """The denoiser."""
        return self.architecture.denoiser(self.pipe)

    @property
    def kind(self) -> str:
        """The class of the denoiser."""
        return type(self.model).__name__

    def text_encoder(self) -> str:
        """Return the hash of the weights that make the rows of a text."""
        return text_encoder_hash(self.pipe)

    def state(self) -> object:
        """Return where weights lie, how often they changed, and adapters' scales."""
        model = self.model
        return (
            tuple((p.data_ptr(), p._version) for p in model.parameters()),
            tuple(_adapter(module) for module in model.modules()),
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the model alone, with weights that take no part in gradients."""
        with _lock, ExitStack() as stack:
            model = self.model
            frozen = [p for p in model.parameters() if p.requires_grad]
            for parameter in frozen:
                parameter.requires_grad_(False)
                stack.callback(parameter.requires_grad_)
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            outer, _here.replaying = is_replaying(), True
            stack.callback(setattr, _here, "replaying", outer)
            # Its blocks are called one by one: offloading brings the model as a whole.
            hook = getattr(model, "_hf_hook", None)
            if hook is not None:
                hook.pre_forward(model)
            yield

    def place(self, texts: Tensor) -> Tensor:
        """Return texts where the model is, in its precision."""
        model = self.model
        return texts.to(self.pipe._execution_device, model.dtype)

    @torch.no_grad()
    def show(
        self,
        inputs: Mapping[str, Tensor],
        last: str,
        meeting: Meeting,
        look: Callable[[Block], None],
    ) -> Tensor:
        """Show a call again up to a block, and let `look` see each."""
        architecture, model = self.architecture, self.model
        device, dtype = self.pipe._execution_device, model.dtype
        ready = {
            name: tensor.to(device, dtype if architecture.is_rounded(name) else None)
            for name, tensor in inputs.items()
        }
        grid = architecture.grid(model, ready)
        thread = threading.get_ident()
        probes: list[Tensor] = []
        seen: dict[str, Tensor] = {}
        inside = looking = False  # a block runs; texts are sent through it

        def attend(call: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            out: Tensor = call(query, key, value)
            if inside and not seen:  # a second attention of a block is the image's own
                seen.update(query=query, key=key, value=value, out=out)
            return out

        def before(_module: Any, _args: Any) -> None:
            nonlocal inside
            if threading.get_ident() == thread and not looking:
                inside = True
                seen.clear()

        def after(name: str, module: Any, args: Any, kwargs: Any, output: Any) -> None:
            nonlocal inside, looking
            if threading.get_ident() != thread or looking:
                return
            inside, looking = False, True
            if not seen:
                raise ValueError(unseen(name))
            parts = architecture.image_part(grid, seen)
            look(_block(name, parts, meeting, architecture, module, args, kwargs))
            if name == last:
                probes.append(probe_cells(architecture.image_states(grid, output)))
                raise _Shown
            looking = False

        with ExitStack() as stack:
            for name, block in architecture.joint_blocks(model).items():
                hook = block.register_forward_pre_hook(before)
                stack.callback(hook.remove)
                hook = block.register_forward_hook(
                    partial(after, name), with_kwargs=True
                )
                stack.callback(hook.remove)
            stack.enter_context(_Tap(attend))
            try:
                architecture.show(model, ready)
            except _Shown:
                return probes[0][0]
        raise ModelMismatchError(f"the model at hand has no block {last}")

    def advance(
        self, block: Block, texts: Tensor, meeting: Meeting
    ) -> tuple[Tensor, Tensor]:
        """Send texts through a block: the stock one, with a dummy for the image."""
        architecture, model = self.architecture, self.model
        module = architecture.joint_blocks(model)[block.name]
        count = texts.shape[1]
        text = slice(0, count) if architecture.text_first else slice(1, None)
        met: list[Tensor] = []

        def attend(call: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            if met or query.shape[2] != count + 1:
                result: Tensor = call(query, key, value)
                return result
            own = query[:, :, text], key[:, :, text], value[:, :, text]
            out = attend_both(*own, block.keys.to(query), block.values.to(query))
            met.append(out if meeting == "outputs" else own[1])
            dummy = torch.zeros_like(out[:, :, :1])
            return torch.cat([out, dummy] if text.start == 0 else [dummy, out], 2)

        with _Tap(attend):
            behind = architecture.advance(model, module, texts, block.arguments)
        if not met:
            raise ValueError(unseen(block.name))
        found = met[0]  # (P, heads, n, head_dim)
        if meeting == "outputs":
            found = found.transpose(1, 2).flatten(2)[:, None]
        return found.transpose(0, 1).flatten(1, 2), texts if behind is None else behind


def attend_both(
    query: Tensor, key: Tensor, value: Tensor, image_key: Tensor, image_value: Tensor
) -> Tensor:
    """Return attention of each text's tokens to the image's and to its own.

    query, key, value are (P, heads, n, dim), the image's (1, heads, cells, dim): they
    are shared by the texts, and only scores are joined.
    """
    count, _, n, dim = query.shape
    cells = image_key.shape[2]
    flat = (query * dim**-0.5).transpose(0, 1).flatten(1, 2)  # (heads, P * n, dim)
    to_image = flat @ image_key[0].transpose(-1, -2)
    to_own = (query * dim**-0.5) @ key.transpose(-1, -2)
    scores = torch.cat([to_image.unflatten(1, (count, n)).transpose(0, 1), to_own], -1)
    precise = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(-1, dtype=precise).to(value.dtype)
    of_image = weights[..., :cells].transpose(0, 1).flatten(1, 2) @ image_value[0]
    mixed: Tensor = of_image.unflatten(1, (count, n)).transpose(0, 1)
    return mixed + weights[..., cells:] @ value


def probe_cells(states: Tensor) -> Tensor:
    """Return what some cells became, (images, cells, dim), of all (images, cells, dim).

    By these a model is known again.
    """
    step = max(1, states.shape[1] // _PROBED)
    return states[:, ::step].detach()[:, :_PROBED].clone()


def unseen(name: str) -> str:
    """Return what is wrong where the attention of a block was not seen."""
    return (
        f"the attention of {name} was not seen: it runs in another backend or "
        "processor than torch's. Call pipe.transformer.set_attention_backend('native') "
        "or take the ordinary processors"
    )


def _block(
    name: str,
    parts: Mapping[str, Tensor],
    meeting: Meeting,
    architecture: JointArchitecture,
    module: Any,
    args: Any,
    kwargs: Any,
) -> Block:
    """Copy what a block saw: views would keep the whole sequence in memory."""
    if meeting == "outputs":
        queries = parts["out"][0].transpose(0, 1).flatten(1)[None]
    else:
        queries = parts["query"][0].clone()
    return Block(
        name,
        queries,
        parts["key"].clone(),
        parts["value"].clone(),
        architecture.arguments(module, args, kwargs),
    )


def _adapter(module: Any) -> object:
    """Return the scales of a module's adapters (LoRA), and whether they are off."""
    scaling = getattr(module, "scaling", None)
    if not isinstance(scaling, dict):
        return None
    active = tuple(getattr(module, "active_adapters", ()))
    off = getattr(module, "disable_adapters", False)
    return tuple(sorted(scaling.items())), active, off, type(module).__name__
