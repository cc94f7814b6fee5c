"""The settings in a graph of ComfyUI: what the first sampler was given.

A graph is followed backwards from the sampler, along links of the same meaning: a link
names a node *and* one of its outputs, and a node that carries the prompt and the
negative prompt hands on each at its own output. What a node of an unknown kind
computes is not guessed: it is passed through by inputs of the same meaning, or gives
nothing.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from napari_ovam.images import comfyui_nodes as known
from napari_ovam.images.comfyui_workflow import nodes_of_workflow, output_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Bounds for graphs that loop or are made to take long.
_DEEPEST = 100
_MOST = 3000
_SAMPLERS = 20
_SWITCHES = 20

Link = tuple[str, int]


def read_graph(
    graph: Mapping[str, Any], workflow: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings of the first sampler of a graph, {} without a sampler.

    Parameters
    ----------
    graph
        What was run, `{id: {"class_type": ..., "inputs": {...}}}`, or the workflow of
        the editor, `{"nodes": [...], "links": [...]}`.
    workflow
        The editor's form of the same graph: it names the outputs of its nodes.
    """
    if isinstance(graph.get("nodes"), list):
        workflow, graph = graph, nodes_of_workflow(graph)
    found = _Graph(graph, output_names(workflow or {}))
    sampler = found.first_sampler()
    if sampler is None:
        return {}
    values = {name: found.value(sampler, want) for name, want in known.VALUES.items()}
    if values["guidance_scale"] is None:
        values["guidance_scale"] = found.value(sampler, known.DISTILLED)
    texts = {
        "prompt": found.text(sampler, "positive"),
        "negative_prompt": found.text(sampler, "negative"),
    }
    return {**values, **texts, "tool": "ComfyUI"}


class _Graph:
    """Nodes by their ids, and the links from each to those that feed it."""

    def __init__(
        self, nodes: Mapping[str, Any], outputs: Mapping[str, list[str]]
    ) -> None:
        whole = {
            str(name): node
            for name, node in nodes.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }
        self._inputs: dict[str, Mapping[str, Any]] = {
            name: node["inputs"] for name, node in whole.items()
        }
        self._kinds = {n: str(node.get("class_type")) for n, node in whole.items()}
        self._outputs = {
            name: outputs.get(name) or known.OUTPUTS.get(kind, "").split()
            for name, kind in self._kinds.items()
        }
        self._used: dict[str, set[int]] = {}  # the outputs that carry text
        for inputs in self._inputs.values():
            for name, value in inputs.items():
                if (link := self._link(value)) and _carries_text(name):
                    self._used.setdefault(link[0], set()).add(link[1])
        self._left = _MOST
        self._choosing: set[str] = set()

    def first_sampler(self) -> str | None:
        """Return the sampler that no other feeds."""
        samplers = [name for name in self._inputs if self._is_sampler(name)]
        if not samplers:  # upscalers and detailers sample within
            samplers = [
                name
                for name, inputs in self._inputs.items()
                if {"positive", "seed", "steps"} <= inputs.keys()
            ]
        every = set(samplers)
        chained = (
            name
            for name in samplers[:_SAMPLERS]
            if not any(n in every and n != name for n in self._upstream(name))
        )
        return next(chained, samplers[0] if samplers else None)

    def _is_sampler(self, name: str) -> bool:
        linked = {key for key, v in self._inputs[name].items() if self._link(v)}
        fed = bool(linked & {"positive", "conditioning", *known.ENTRIES})
        if "latent_image" in linked and fed:
            return True
        fed = fed or any(known.BUNDLE.fullmatch(key) for key in linked)
        return fed and "sampler" in self._kinds[name].lower()

    # -- numbers and names --------------------------------------------------------

    def value(self, start: str, wanted: known.Value) -> Any:
        """Return the nearest value of a meaning, None if there is none."""
        ways = rf"{wanted.through}|{known.NEUTRAL.pattern}"
        through = re.compile(ways, re.IGNORECASE)
        for node in islice(self._upstream(start, through), _DEEPEST):
            inputs = self._inputs[node]
            for name in wanted.names:
                value = inputs.get(name)
                if isinstance(value, dict):  # a name beside its preview
                    value = value.get("content")
                if link := self._link(value):
                    value = self._literal(link, wanted.names)
                    if value is None and not re.fullmatch(through, name):
                        return None  # it is computed
                if isinstance(value, (str, int, float)):
                    return value
            if inputs.keys() & {"scale_by", "upscale_by", "rescale_factor"}:
                return None
        return None

    def _literal(self, start: Link, names: Iterable[str]) -> Any:
        """Return the constant that a link brings, None if it is computed."""
        for node in islice(self._upstream(start[0], known.NEUTRAL), _DEEPEST):
            for name in (*names, *known.LITERALS):
                value = self._inputs[node].get(name)
                if isinstance(value, (str, int, float)):
                    return value
        return None

    def _upstream(
        self, start: str, through: re.Pattern[str] | None = None
    ) -> Iterator[str]:
        """Yield a node and those that feed it by some inputs, the nearest first."""
        queue, seen = deque([start]), {start}
        while queue:
            node = queue.popleft()
            yield node
            chosen = self._chosen(node) if through is not None else None
            for name, value in self._inputs[node].items():
                link = self._link(value)
                if link is None or link[0] in seen:
                    continue
                if chosen is not None:
                    follow = name in chosen
                else:
                    follow = through is None or bool(
                        through.fullmatch(name) or known.BUNDLE.fullmatch(name)
                    )
                if follow:
                    seen.add(link[0])
                    queue.append(link[0])

    # -- texts --------------------------------------------------------------------

    def text(self, sampler: str, side: str) -> str:
        """Return the text that reaches a side of a sampler."""
        self._left = _MOST
        found = self._text((sampler, -1), side, frozenset())
        return "" if found is None else found

    def _text(self, link: Link, side: str, seen: frozenset[Link]) -> str | None:
        """Return the text at an output, None if it is not known."""
        node = link[0]
        self._left -= 1
        if link in seen or len(seen) > _DEEPEST or self._left < 0:
            return None
        inputs, seen = self._inputs[node], seen | {link}

        def of(names: Iterable[str]) -> list[str | None]:
            values = (inputs[name] for name in names if name in inputs)
            return [self._of_input(value, side, seen) for value in values]

        kind, output = self._kinds[node], self._output(link)
        for name, value in inputs.items() if known.SHOWS.search(kind) else ():
            if known.RESULTS.fullmatch(name) and isinstance(value, str) and value:
                return value
        if known.OPAQUE.search(kind) or output in known.NO_TEXT:
            return None
        side = next((s for s, p in known.SIDES.items() if p.search(output)), side)
        if (chosen := self._chosen(node)) is not None:
            return _first(of(chosen))
        sides = self._sided(inputs)
        if any(sides.values()):
            side = self._side(link, side, sides)
            return _together(of(sides[side]))
        if side == "negative" and "guider" in kind.lower():
            return None  # it has none
        if output in inputs and len(self._outputs[node]) > 1:
            return _first(of([output]))
        parts = sorted((n for n in inputs if known.PARTS.fullmatch(n)), key=_order)
        delimiter = next((n for n in known.DELIMITERS if n in inputs), None)
        if parts and (delimiter or len(parts) > 1):
            return _joined(of(parts), delimiter, inputs)
        if texts := [name for name in known.TEXTS if name in inputs]:
            return _replaced(_together(of(texts)), inputs)
        names = sorted(filter(known.CONDITIONING.fullmatch, inputs), key=_order)
        linked = [name for name in names if self._link(inputs[name])]
        if linked := linked or [name for name in known.ENTRIES if name in inputs]:
            return _together(of(linked))
        alike = [name for name in inputs if known.ALIKE.search(name)]
        if len(alike) == 1:
            return _first(of(alike))
        return _first(of(filter(known.HANDED_ON.fullmatch, inputs)))

    def _of_input(self, value: Any, side: str, seen: frozenset[Link]) -> str | None:
        if link := self._link(value):
            return self._text(link, side, seen)
        return value if isinstance(value, str) else None

    def _output(self, link: Link) -> str:
        names = self._outputs[link[0]]
        return names[link[1]].lower() if 0 <= link[1] < len(names) else ""

    def _sided(self, inputs: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return the inputs for either side, of a node that tells them apart."""
        texts = [n for n, v in inputs.items() if isinstance(v, str) or self._link(v)]
        found = {
            side: sorted((n for n in texts if pattern.search(n)), key=_order)
            for side, pattern in known.SIDES.items()
        }
        if found["negative"] and not found["positive"]:
            found["positive"] = [n for n in texts if known.CONDITIONING.fullmatch(n)]
        return found

    def _side(self, link: Link, side: str, sides: Mapping[str, list[str]]) -> str:
        """Return which side an output of a node with such inputs hands on.

        Where it is not named, the prompt's output comes before the negative one's; and
        where one alone is used, it is the side that was asked for.
        """
        node, slot = link
        if slot >= 0 and not self._output(link):
            used = sorted(self._used.get(node, ()))
            if len(used) == 2 and slot in used and all(sides.values()):
                side = ("positive", "negative")[used.index(slot)]
        if slot >= 0 and not sides[side] and "guider" not in self._kinds[node].lower():
            return next(side for side, names in sides.items() if names)  # it has one
        return side

    def _chosen(self, node: str) -> list[str] | None:
        """Return the inputs that a switch hands on, None if the node is none."""
        inputs = self._inputs[node]
        if not known.SWITCH.search(self._kinds[node]):
            return None
        control = next((n for n in inputs if known.CONTROLS.fullmatch(n)), None)
        if control is None:  # the first that is connected
            linked = (n for n, v in inputs.items() if self._link(v))
            return sorted(linked, key=_order)[:1]
        value = inputs[control]
        if link := self._link(value):
            if node in self._choosing or len(self._choosing) > _SWITCHES:
                return []
            self._choosing.add(node)
            value = self._literal(link, ("boolean", "bool"))
            self._choosing.discard(node)
        if isinstance(value, str) and value.lower() in ("true", "false", "on", "off"):
            value = value.lower() in ("true", "on")
        for pair in known.PAIRS:
            if isinstance(value, bool) and inputs.keys() & set(pair):
                return [pair[0] if value else pair[1]]
        try:
            wanted = int(value)
        except (TypeError, ValueError, OverflowError):
            return []
        numbered = ((name, re.search(r"\d+$", name)) for name in inputs)
        return [
            name for name, number in numbered if number and int(number[0]) == wanted
        ]

    def _link(self, value: Any) -> Link | None:
        """Return what an input is linked to: [node, slot]."""
        if (
            isinstance(value, list)
            and len(value) == 2
            and isinstance(value[1], int)
            and str(value[0]) in self._inputs
        ):
            return str(value[0]), value[1]
        return None


def _carries_text(name: str) -> bool:
    return bool(
        any(pattern.search(name) for pattern in known.SIDES.values())
        or known.CONDITIONING.fullmatch(name)
        or name in known.TEXTS
        or known.PARTS.fullmatch(name)
    )


def _order(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """Order names by the numbers in them, and what is added to before what is added."""
    words = re.findall(r"\d+|\D+", name)
    return name.endswith("from"), [(int(w) if w.isdigit() else -1, w) for w in words]


def _first(texts: Iterable[str | None]) -> str | None:
    return next((text for text in texts if text is not None), None)


def _together(texts: Iterable[str | None]) -> str | None:
    """Return each text once, a line each; what is not known is left out."""
    said = dict.fromkeys(text for text in texts if text is not None)
    return "\n".join(filter(None, said)) if said else None


def _joined(
    parts: list[str | None], delimiter: str | None, inputs: Mapping[str, Any]
) -> str | None:
    """Join texts, None where one is not known or what is done to them is computed."""
    tags = ", " if inputs.get("tidy_tags") == "yes" else " "
    between = tags if delimiter is None else inputs[delimiter]
    appended = inputs.get("action", "append") == "append"
    if None in parts or not isinstance(between, str) or not appended:
        return None
    return between.replace("\\n", "\n").join(p for p in parts if p)


def _replaced(text: str | None, inputs: Mapping[str, Any]) -> str | None:
    find, new = inputs.get("find"), inputs.get("replace")
    if text is None or find is None or new is None:
        return text
    if not (isinstance(find, str) and isinstance(new, str)):
        return None
    return text.replace(find, new) if find else text
