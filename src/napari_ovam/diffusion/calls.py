"""Which denoising call of which run is running, and whose the rows of its batch are.

A pipeline walks through a schedule of time steps, and under guidance shows each image
with two texts: in one batch, in either order, or in two calls. What a call is follows
from what the model is given; what does not follow from it is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ovam.attention.trace_settings import quarter_calls

if TYPE_CHECKING:
    from contextlib import ExitStack

    from napari_ovam.diffusion.architectures.base import Architecture

_WHAT_TO_DO = (
    "Encode the texts inside the block (pipe.encode_prompt), show the negative one and "
    "the prompt in one batch, or record without guidance"
)


class GuidanceError(ValueError):
    """A kind of guidance of which it cannot be told what belongs to which text."""


class Step:
    """A time step, and its place among others.

    A pipeline hands to its model views of one tensor of time steps, in order. Values
    alone would not do: PNDM and Heun repeat theirs, and after a cancelled call those
    of the next may go on falling. They are what is left where there is no such tensor.
    """

    def __init__(self, timestep: Any) -> None:
        self.value = timestep  # keeps the storage alive: its address stays taken
        # A vector with an element an image is a copy, whose storage is no schedule.
        self._is_view = isinstance(timestep, Tensor) and not any(
            size > 1 and stride
            for size, stride in zip(timestep.shape, timestep.stride(), strict=True)
        )

    @property
    def remaining(self) -> int | None:
        """Steps from here to the end of the schedule, None where it is not known."""
        if not self._is_view:
            return None
        storage = self.value.untyped_storage()
        count = storage.nbytes() // self.value.element_size()
        return count - int(self.value.storage_offset()) if count > 1 else None

    def is_one_with(self, other: Step) -> bool:
        """Tell whether both are the same place of one tensor."""
        return (
            isinstance(self.value, Tensor)
            and isinstance(other.value, Tensor)
            and self.value.data_ptr() == other.value.data_ptr()
        )

    def compare(self, other: Step) -> float:
        """Return a number above 0 if it comes after another, and 0 if they are one."""
        if self.is_one_with(other):
            return 0
        if self.remaining is None and other.remaining is None:
            return _first(other.value) - _first(self.value)
        if self.remaining is None or other.remaining is None:
            return -1
        new, old = self.value, other.value
        if new.untyped_storage().data_ptr() != old.untyped_storage().data_ptr():
            return -1
        return float(new.storage_offset() - old.storage_offset())


@dataclass
class Call:
    """What the model is given in one call."""

    sample: Tensor  # latents, the images one after the other
    text: Tensor  # what its cross-attention reads, a row an image
    step: Step
    # How often texts were encoded before it: a call of a pipeline begins with that.
    encodings: int = 0
    # The rows of the batch that see the negative text and the prompt. Without guidance
    # all are in `cond`.
    uncond: list[int] = field(default_factory=list)
    cond: list[int] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the latents."""
        return self.sample.shape[-2], self.sample.shape[-1]

    def shares_step(self, other: Call) -> bool:
        """Tell whether two calls are of one time step, and of one call of a pipeline.

        A pipeline of one step comes to the same time step in each of its calls.
        """
        return self.step.is_one_with(other.step) or (
            self.step.compare(other.step) == 0 and self.encodings == other.encodings
        )

    def repeats(self, other: Call) -> bool:
        """Tell whether the same latents are shown again at the same time step."""
        return (
            self.sample.shape == other.sample.shape
            and self.shares_step(other)
            and torch.equal(self.sample.nan_to_num(), other.sample.nan_to_num())
        )


@dataclass
class Run:
    """One walk through a schedule."""

    last: Call
    totals: tuple[int, ...]  # how many calls there may be; empty where nothing is known
    guided: bool = False  # whether a call of it was guided
    alone: set[int] = field(default_factory=set)  # its calls without guidance
    # How often the last time step was shown: twice, where each text has a call of its
    # own.
    passes: int = 1
    count: int = 1  # denoising calls so far; two calls with one text each count once

    @property
    def images(self) -> int:
        """How many images are made."""
        return len(self.last.cond) or len(self.last.uncond)

    def goes_on_with(self, call: Call) -> bool:
        """Tell whether a call comes next in this run, and begins no other."""
        return (
            call.size == self.last.size
            and len(call.cond or call.uncond) == self.images
            and (
                call.step.compare(self.last.step) > 0
                # Schedules repeat steps (Heun, PNDM); two lone calls are two runs.
                or (self.count > 1 and call.shares_step(self.last))
            )
        )


class Texts:
    """Tells negative texts from prompts: as the pipeline encoded them last, or empty.

    Attributes
    ----------
    encodings
        How often it encoded texts.
    """

    def __init__(self, architecture: Architecture, pipe: Any) -> None:
        self.architecture, self.pipe = architecture, pipe
        self.encodings = 0
        self._before = 0  # those before the last call of the model
        self._prompts: Tensor | None = None
        self._negatives: Tensor | None = None  # known, they tell which text is whose
        self._empty: list[Tensor] = []

    def listen(self, stack: ExitStack) -> None:
        """Note what the pipeline encodes, until the stack is closed."""
        encode = getattr(self.pipe, "encode_prompt", None)
        if encode is None:
            return

        @wraps(encode)
        def noting(*args: Any, **kwargs: Any) -> Any:
            encoded = encode(*args, **kwargs)
            self.encodings += 1
            sides = self.architecture.encoded_sides(encoded)
            if sides is None:
                return encoded
            prompts, negatives = sides
            is_second = self.encodings - self._before == 2
            if self.architecture.encodes_apart and is_second:
                prompts, negatives = self._prompts, prompts
            self._prompts, self._negatives = prompts, negatives
            return encoded

        held = vars(self.pipe)
        before = held.get("encode_prompt")
        held["encode_prompt"] = noting

        def restore() -> None:
            if before is None:
                del held["encode_prompt"]
            else:
                held["encode_prompt"] = before

        stack.callback(restore)

    def note_call(self) -> None:
        """Note a call of the model: what is encoded from now on is of another run."""
        self._before = self.encodings

    def assign(self, call: Call) -> None:
        """Find the rows of a batch that see the negative text, and the prompt.

        It raises `GuidanceError` if that cannot be told.
        """
        rows = list(range(len(call.sample)))
        call.uncond, call.cond = [], rows
        copies = _count_copies(call.sample)
        if copies == 1:
            return
        are_negative, are_prompts = self._sort(call.text)
        if not any(are_negative):
            if _count_copies(call.text, call.sample) > 1:
                raise GuidanceError(
                    "the model is shown the same latents with the same text more than "
                    "once (perturbed guidance?): which of them make the image is not "
                    f"known. {_WHAT_TO_DO}"
                )
            if all(are_prompts):
                return  # several images that start alike
            if not any(are_prompts):
                raise GuidanceError(
                    "which half of the batch is the prompt's is not known: neither "
                    f"text was seen to be encoded, and none is empty. {_WHAT_TO_DO}"
                )
        half = len(rows) // 2
        if all(are_negative) and all(are_prompts):  # one text is both: halves are alike
            uncond, cond = rows[:half], rows[half:]
        elif any(are_negative):
            uncond = [row for row in rows if are_negative[row]]
            cond = [row for row in rows if not are_negative[row]]
        else:
            uncond = [row for row in rows if not are_prompts[row]]
            cond = [row for row in rows if are_prompts[row]]
        if len(uncond) != len(cond) or not torch.equal(
            call.sample[uncond].nan_to_num(), call.sample[cond].nan_to_num()
        ):
            raise GuidanceError(
                f"the model is shown each image {copies} times, {len(uncond)} rows "
                f"with the negative text and {len(cond)} with the prompt: guidance in "
                "more than two parts (perturbed?) cannot be recorded. Switch it off"
            )
        call.uncond, call.cond = uncond, cond

    def tell_apart(self, first: Call, second: Call) -> None:
        """Assign one text each to two calls with the same latents.

        It raises `GuidanceError` if that cannot be told.
        """
        kinds = [self._sort(call.text) for call in (first, second)]
        negative = [all(negatives) for negatives, _ in kinds]
        if negative[0] == negative[1] and self._negatives is not None:
            negative = [not all(prompts) for _, prompts in kinds]
        order = (first, second) if negative[0] else (second, first)
        if negative[0] == negative[1]:
            raise GuidanceError(
                "the model is called twice at one time step with the same latents, and "
                "which call is the prompt's is not known (guidance in calls of their "
                f"own?). {_WHAT_TO_DO}"
            )
        rows = list(range(len(first.sample)))
        for call, uncond, cond in zip(order, (rows, []), ([], rows), strict=True):
            call.uncond, call.cond = uncond, cond

    def _sort(self, text: Tensor) -> tuple[list[bool], list[bool]]:
        """Return which rows are known to be a negative text, and which a prompt."""
        prompts = _are_among(text, self._prompts)
        negatives = _are_among(text, self._negatives)
        if not any(negatives) and not all(prompts):
            if self._negatives is None:  # what was encoded last may be either
                prompts = [False] * len(text)
            if not self._empty:
                self._encode_empty(text)
            of_each = zip(*(_are_among(text, e) for e in self._empty), strict=True)
            negatives = [any(found) for found in of_each]
        return negatives, prompts

    @torch.no_grad()
    def _encode_empty(self, like: Tensor) -> None:
        """Note what stands for no text where nothing else is said."""
        self._empty.append(torch.zeros_like(like[:1]))  # XL's
        if self.architecture.text_modules(self.pipe):
            before = self._prompts, self._negatives, self.encodings
            conditions = self.architecture.conditions(self.pipe, "", (64, 64))
            self._prompts, self._negatives, self.encodings = before
            self._empty.append(conditions["encoder_hidden_states"])


def expected_totals(pipe: Any, step: Step) -> tuple[int, ...]:
    """Return how many calls a run that begins here may have.

    The schedule says how many there can be, and the pipeline, where it was cut short
    (`denoising_end`), how many it makes; in a loop of one's own that is an old number.
    """
    remaining = step.remaining
    counted = getattr(pipe, "_num_timesteps", None)
    if remaining is None:  # the model is given other numbers than the schedule's
        whole = len(getattr(pipe.scheduler, "timesteps", ()))
        return (whole,) if whole and whole == counted else ()
    if isinstance(counted, int) and 0 < counted < remaining:
        return counted, remaining
    return (remaining,)


def choose_quarters(run: Run, kept: list[int]) -> list[int]:
    """Return the calls a quarter, half and three quarters of the way, of those kept.

    Of a run that was stopped early, those that came of what was planned.
    """
    wanted = set(quarter_calls(run.count))
    if run.totals and not wanted <= set(kept):
        wanted = set(quarter_calls(max(run.totals)))
    return [call for call in kept if call in wanted]


def planned_calls(totals: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the calls to keep for `choose_quarters`, None for all."""
    planned = {call for total in totals for call in quarter_calls(total)}
    return tuple(sorted(planned)) or None


def _count_copies(*tensors: Tensor) -> int:
    """Return how many rows are as the first one, in all of the tensors."""
    alike = [(t.nan_to_num() == t[:1].nan_to_num()).flatten(1).all(1) for t in tensors]
    if len(alike[0]) == 1:
        return 1
    return int(torch.stack(alike).all(0).sum())


def _are_among(text: Tensor, known: Tensor | None) -> list[bool]:
    """Tell for each row of a text whether it is a row of a known one."""
    if known is None or known.shape[1:] != text.shape[1:]:
        return [False] * len(text)
    same = text.nan_to_num()[:, None] == known.to(text).nan_to_num()[None]
    return [bool(found) for found in same.flatten(2).all(2).any(1).tolist()]


def _first(value: Any) -> float:
    return float(value.flatten()[0] if isinstance(value, Tensor) else value)
