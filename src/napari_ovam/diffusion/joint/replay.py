"""A model with joint attention that is asked afterwards: see `attention.streams`."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

import torch
from torch import Tensor

from napari_ovam.attention.layer_traces import ModelMismatchError
from napari_ovam.attention.shown_calls import Block, Meeting, offer_model
from napari_ovam.diffusion.architectures import pipeline_architecture
from napari_ovam.diffusion.architectures.attention_tap import AttentionTap
from napari_ovam.diffusion.architectures.joint import JointArchitecture
from napari_ovam.diffusion.weights_hash import text_encoder_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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

    def __init__(self, probe: Tensor) -> None:
        super().__init__()
        self.probe = probe


class JointReplay:
    """A pipeline with joint attention, as `attention.streams` asks it."""

    def __init__(self, pipe: Any) -> None:
        self.known_pipe = ref(pipe)
        self.architecture = cast("JointArchitecture", pipeline_architecture(pipe))

    @property
    def pipe(self) -> Any:
        """The pipeline; it raises `ModelMismatchError` once that is gone."""
        if (pipe := self.known_pipe()) is None:
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
            name: tensor.to(
                device, dtype if architecture.is_rounded(name, tensor) else None
            )
            for name, tensor in inputs.items()
        }
        run = _Run(architecture, architecture.grid(model, inputs), last, meeting, look)
        with ExitStack() as stack:
            for name, block in architecture.joint_blocks(model).items():
                stack.callback(block.register_forward_pre_hook(run.before).remove)
                after = partial(run.after, name)
                hook = block.register_forward_hook(after, with_kwargs=True)
                stack.callback(hook.remove)
            stack.enter_context(AttentionTap(run.attend))
            try:
                architecture.show(model, ready)
            except _Shown as shown:
                return shown.probe
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

        with AttentionTap(attend):
            behind = architecture.advance(model, module, texts, block)
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


class _Run:
    """Looks at the blocks of one call of the model, in the thread that made it."""

    def __init__(
        self,
        architecture: JointArchitecture,
        grid: tuple[int, int],
        last: str,
        meeting: Meeting,
        look: Callable[[Block], None],
    ) -> None:
        self.architecture, self.grid = architecture, grid
        self.last, self.meeting, self.look = last, meeting, look
        self.thread = threading.get_ident()
        self.is_inside = False  # a block
        self.is_looking = False  # texts are sent through the block
        self.seen: dict[str, Tensor] = {}

    def attend(self, call: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Note the first attention in a block; a second one is the image's own."""
        out: Tensor = call(query, key, value)
        if self.is_inside and not self.seen:
            self.seen = {"query": query, "key": key, "value": value, "out": out}
        return out

    def before(self, _module: Any, _args: Any) -> None:
        """Begin a block."""
        if threading.get_ident() == self.thread and not self.is_looking:
            self.is_inside = True
            self.seen = {}

    def after(
        self, name: str, module: Any, args: Any, kwargs: Any, output: Any
    ) -> None:
        """End a block: look at it, and leave behind the last one."""
        if threading.get_ident() != self.thread or self.is_looking:
            return
        if not self.seen:
            raise ValueError(unseen(name))
        self.is_inside, self.is_looking = False, True
        self.look(self._block(name, self.architecture.arguments(module, args, kwargs)))
        self.is_looking = False
        if name == self.last:
            states = self.architecture.image_states(self.grid, output)
            raise _Shown(probe_cells(states)[0])

    def _block(self, name: str, arguments: Mapping[str, Any]) -> Block:
        """Copy what the block saw: views would keep the whole sequence in memory."""
        parts = self.architecture.image_part(self.grid, self.seen)
        if self.meeting == "outputs":
            queries = parts["out"][0].transpose(0, 1).flatten(1)[None]
        else:
            queries = parts["query"][0].clone()
        key, value = parts["key"].clone(), parts["value"].clone()
        return Block(name, self.grid, queries, key, value, arguments)


def _adapter(module: Any) -> object:
    """Return the scales of a module's adapters (LoRA), and whether they are off."""
    scaling = getattr(module, "scaling", None)
    if not isinstance(scaling, dict):
        return None
    active = tuple(getattr(module, "active_adapters", ()))
    off = getattr(module, "disable_adapters", False)
    return tuple(sorted(scaling.items())), active, off, type(module).__name__
