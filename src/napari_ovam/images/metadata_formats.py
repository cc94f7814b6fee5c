"""What each tool writes into its images, taken apart.

Each function takes a text and returns what it says under our names (`FIELDS`), as it
says it: nothing is checked here. Text that is not of the kind gives an empty mapping,
or one of the errors in `MALFORMED`.
"""

from __future__ import annotations

import json
import re
from collections import deque
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FIELDS = (
    *("tool", "prompt", "negative_prompt", "seed", "sampler", "steps"),
    *("guidance_scale", "width", "height", "model"),
)
MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RecursionError,
)
Found = dict[str, Any]

# Texts beyond this are kept raw and not taken apart.
_LONGEST = 2**22
# Nodes of a graph that are looked at one by one, so that the time stays in proportion.
_NEAR = 20
# Names of our fields elsewhere, in lower case, with spaces and hyphens as underscores:
# diffusers, Easy Diffusion, Fooocus, NovelAI, Draw Things, InvokeAI.
_NAMES = {
    "prompt": ("prompt", "positive_prompt", "c"),
    "negative_prompt": ("negative_prompt", "uc"),
    "seed": ("seed",),
    "sampler": ("sampler", "sampler_name", "scheduler", "scheduler_name"),
    "steps": ("steps", "num_inference_steps"),
    "guidance_scale": ("guidance_scale", "cfg_scale", "cfg", "scale"),
    "width": ("width",),
    "height": ("height",),
    "model": (
        *("model", "model_name", "base_model", "model_id", "pretrained_model"),
        *("use_stable_diffusion_model", "pretrained_model_name_or_path"),
    ),
}


def infotext(text: str) -> Found:
    """Take apart what AUTOMATIC1111's web UI and its heirs write.

    The prompt, "Negative prompt: ", and a line of "Key: value", separated by commas;
    values that hold commas or colons are JSON strings.
    https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/modules/infotext_utils.py
    """
    if len(text) > _LONGEST:
        return {}
    lines = text.strip().splitlines()
    # Extensions append lines: the last that has settings counts.
    for last in range(len(lines) - 1, -1, -1):
        values = _pairs(lines[last])
        if len(values.keys() & {"Steps", "Seed", "Sampler", "CFG scale", "Size"}) > 1:
            break
    else:
        return {}
    first = next(
        (i for i, line in enumerate(lines[:last]) if _negative(line) is not None), last
    )
    negative = [_negative(lines[first]) or "", *lines[first + 1 : last]]
    width, _, height = values.get("Size", "").partition("x")
    version = values.get("Version", "")
    tools = {"f": "Forge", "napari-ovam": "napari-ovam", "Fooocus": "Fooocus"}
    return {
        "tool": next(
            (tool for start, tool in tools.items() if version.startswith(start)),
            "AUTOMATIC1111",
        ),
        "prompt": "\n".join(lines[:first]).strip(),
        "negative_prompt": "\n".join(negative).strip() if first < last else "",
        "seed": values.get("Seed"),
        "sampler": " ".join(
            values[key] for key in ("Sampler", "Schedule type") if values.get(key)
        ),
        "steps": values.get("Steps"),
        "guidance_scale": values.get("CFG scale"),
        "width": width,
        "height": height,
        "model": values.get("Model") or values.get("Model hash"),
    }


def _negative(line: str) -> str | None:
    start, colon, rest = line.partition("Negative prompt:")
    return rest.strip() if colon and not start.strip() else None


def _pairs(line: str) -> dict[str, str]:
    """Return the "Key: value" pairs of a line, in one pass however it is written."""
    pairs, at, decoder = dict[str, str](), 0, json.JSONDecoder()
    while (colon := line.find(":", at)) >= 0:
        key = line[at:colon].rpartition(",")[2].strip()
        start = colon + 1
        while line[start : start + 1] == " ":
            start += 1
        value, at = None, start
        if line[start : start + 1] == '"':
            try:
                value, at = decoder.raw_decode(line, start)
            except ValueError:
                return pairs  # a quote without its end
        if value is None:
            end = line.find(",", start)
            value, at = (line[start:end], end) if end >= 0 else (line[start:], -1)
        if re.fullmatch(r"\w[\w /-]{0,60}", key):
            pairs[key] = value.strip()
        if at < 0 or (at := line.find(",", at) + 1) == 0:
            break
    return pairs


def invokeai(text: str) -> Found:
    """Take apart `invokeai_metadata`, of InvokeAI 3 and later."""
    return {**mapping(_object(text)), "tool": "InvokeAI"}


def invokeai_2(text: str) -> Found:
    """Take apart `sd-metadata`, of InvokeAI 2."""
    content = _object(text)
    image = dict(content["image"])
    prompts = image.pop("prompt", "")
    if not isinstance(prompts, str):
        prompts = " ".join(str(each["prompt"]) for each in prompts)
    return {
        **mapping(image),
        **_bracketed(prompts),
        "model": content.get("model_weights") or content.get("model_id"),
        "tool": "InvokeAI",
    }


def dream(text: str) -> Found:
    """Take apart `Dream`, the command line of the first InvokeAI."""
    quoted = re.match(r'\s*"((?:[^"\\]|\\.)*)"(.*)', text[:_LONGEST], re.DOTALL)
    if quoted is None:
        return {}
    words = quoted[2].split()
    options = {a[1:]: b for a, b in pairwise(words) if a[:1] == "-"}
    names = {
        **{"s": "steps", "S": "seed", "C": "guidance_scale", "A": "sampler"},
        **{"W": "width", "H": "height"},
    }
    return {
        **{name: options.get(key) for key, name in names.items()},
        **_bracketed(quoted[1].replace('\\"', '"')),
        "tool": "InvokeAI",
    }


def _bracketed(prompt: str) -> Found:
    """Split a prompt whose [parts in brackets] are what is not wanted."""
    return {
        "prompt": " ".join(re.sub(r"\[[^\[\]]*\]", " ", prompt).split()),
        "negative_prompt": ", ".join(re.findall(r"\[([^\[\]]*)\]", prompt)),
    }


def comfyui(text: str) -> Found:
    """Take apart `prompt`, the graph that ComfyUI ran.

    Of several samplers it is the first in the chain, that starts from noise. Values
    that come from nodes of unknown kinds are not found.
    """
    graph = _Graph(_object(text))
    sampler = graph.first_sampler()
    if sampler is None:
        return {}
    found = {
        "seed": graph.value(sampler, "seed", "noise_seed"),
        "sampler": graph.value(sampler, "sampler_name"),
        "steps": graph.value(sampler, "steps"),
        "guidance_scale": graph.value(sampler, "cfg", "guidance"),
        "width": graph.value(sampler, "width"),
        "height": graph.value(sampler, "height"),
        "model": graph.value(sampler, "ckpt_name", "unet_name"),
        "prompt": graph.text(sampler, "positive", "conditioning"),
        "negative_prompt": graph.text(sampler, "negative"),
    }
    return {**found, "tool": "ComfyUI"}


class _Graph:
    """Nodes by their ids, and the links from each to those that feed it."""

    _TEXTS = ("text", "text_g", "text_l", "t5xxl", "clip_l", "string", "prompt")
    _LITERALS = ("value", "int", "float", "number", "seed", *_TEXTS)

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self.inputs: dict[str, Mapping[str, Any]] = {
            str(name): node["inputs"]
            for name, node in nodes.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }

    def first_sampler(self) -> str | None:
        """Return the sampler that no other feeds."""
        samplers = [
            name
            for name, inputs in self.inputs.items()
            if self._link(inputs.get("latent_image"))
            and ("positive" in inputs or "guider" in inputs)
        ]
        known = set(samplers)
        chained = (
            name
            for name in samplers[:_NEAR]
            if not any(n in known and n != name for n in self._upstream(name))
        )
        return next(chained, samplers[0] if samplers else None)

    def value(self, start: str, *names: str) -> Any:
        """Return the nearest value of one of these names, None if there is none."""
        for node in self._upstream(start, without=("positive", "negative", "clip")):
            for name in names:
                value = self.inputs[node].get(name)
                if (link := self._link(value)) is not None:
                    value = self._literal(link)
                if isinstance(value, (str, int, float)):
                    return value
        return None

    def text(self, start: str, *names: str) -> str:
        """Return the texts that reach one of these inputs."""
        for node in self._upstream(start, without=("latent_image", "model")):
            for name in names:
                link = self._link(self.inputs[node].get(name))
                if link is not None:
                    return "\n".join(self._texts(link))
        return ""

    def _texts(self, start: str) -> Iterator[str]:
        said = set[str]()
        for node in self._upstream(start, without=("clip", "model", "vae")):
            for name in self._TEXTS:
                value = self.inputs[node].get(name)
                if (link := self._link(value)) is not None:
                    value = self._literal(link)
                if isinstance(value, str) and value not in said:
                    said.add(value)
                    yield value

    def _literal(self, start: str) -> Any:
        for node in islice(self._upstream(start), _NEAR):
            for name in self._LITERALS:
                value = self.inputs[node].get(name)
                if isinstance(value, (str, int, float)):
                    return value
        return None

    def _upstream(self, start: str, without: Iterable[str] = ()) -> Iterator[str]:
        """Yield a node and those that feed it, the nearest first, each once."""
        queue, seen = deque([start]), {start}
        while queue:
            node = queue.popleft()
            yield node
            for name, value in self.inputs[node].items():
                link = self._link(value)
                if link is not None and link not in seen and name not in without:
                    seen.add(link)
                    queue.append(link)

    def _link(self, value: Any) -> str | None:
        """Return the node that an input is linked to: it is [node, slot]."""
        if isinstance(value, list) and len(value) == 2 and str(value[0]) in self.inputs:
            return str(value[0])
        return None


def json_text(text: str) -> Found:
    """Take apart a JSON object of settings, as scripts around diffusers write it."""
    return mapping(_object(text))


def mapping(content: Mapping[str, Any]) -> Found:
    """Take settings out of a mapping whose names are any tool's."""
    by_name = {
        str(key).lower().replace(" ", "_").replace("-", "_"): value
        for key, value in content.items()
    }
    found: Found = {}
    for field, names in _NAMES.items():
        values = (by_name[name] for name in names if by_name.get(name) is not None)
        found[field] = next(values, None)
    model = found["model"]
    if isinstance(model, dict):
        found["model"] = model.get("name") or model.get("model_name")
    size = by_name.get("size", by_name.get("resolution"))
    sides = re.findall(r"\d+", str(size)[:40]) if found["width"] is None else []
    if len(sides) == 2:
        found["width"], found["height"] = sides
    return found


def _object(text: str) -> dict[str, Any]:
    """Return a JSON object, {} for anything else."""
    if len(text) > _LONGEST or not text.lstrip().startswith("{"):
        return {}
    content = json.loads(text)
    return content if isinstance(content, dict) else {}
