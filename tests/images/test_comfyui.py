"""Graphs of ComfyUI: each side of the sampler gets its own words, or none."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ovam.images.comfyui import read_graph
from napari_ovam.images.metadata_formats import read_json

Graph = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(**nodes: Any) -> Graph:
    """Return an ordinary graph, with nodes (n20 is "20") added or replaced."""
    plain = {
        "3": node(
            "KSampler",
            **{"seed": 11, "steps": 20, "cfg": 6.5, "sampler_name": "euler"},
            **{"scheduler": "normal", "denoise": 1, "model": ["4", 0]},
            **{"positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="m.safetensors"),
        "5": node("EmptyLatentImage", width=640, height=512, batch_size=1),
        "6": node("CLIPTextEncode", text="fox", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="rain", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0]),
    }
    return {**plain, **{name[1:]: content for name, content in nodes.items()}}


def fed(positive: list[Any], negative: list[Any], **nodes: Any) -> Graph:
    """Return a graph whose sampler gets its sides from elsewhere."""
    made = graph(**nodes)
    made["3"]["inputs"].update(positive=positive, negative=negative)
    return made


def worded(text: Any, **nodes: Any) -> Graph:
    """Return a graph whose prompt comes from elsewhere."""
    made = graph(**nodes)
    made["6"]["inputs"]["text"] = text
    return made


def sides(made: Graph, workflow: Graph | None = None) -> tuple[str, str]:
    found = read_graph(made, workflow)
    return found["prompt"], found["negative_prompt"]


BOTH = {"positive": ["6", 0], "negative": ["7", 0]}


@pytest.mark.parametrize(
    "kind",
    [
        *("ControlNetApplyAdvanced", "InpaintModelConditioning", "SomethingUnknown"),
        *("ControlNetApplySD3", "ACN_AdvancedControlNetApply"),
    ],
)
def test_a_node_of_both_sides_hands_on_each_by_its_slot(kind: str) -> None:
    both = node(kind, **BOTH)
    assert sides(fed(["20", 0], ["20", 1], n20=both)) == ("fox", "rain")
    assert sides(fed(["20", 1], ["20", 0], n20=both)) == ("rain", "fox")
    second = node(kind, positive=["20", 0], negative=["20", 1])
    assert sides(fed(["21", 0], ["21", 1], n20=both, n21=second)) == ("fox", "rain")
    alone = fed(["20", 0], ["7", 0], n20=both)
    assert sides(alone) == ("fox", "rain")


def test_slots_are_named_by_the_workflow_where_it_is_there() -> None:
    both = node("Odd", **BOTH)
    outputs = [{"name": n} for n in ("IMAGE", "negative", "positive")]
    workflow = {"nodes": [{"id": 20, "type": "Odd", "outputs": outputs}], "links": []}
    made = fed(["20", 2], ["20", 1], n20=both)
    assert sides(made, workflow) == ("fox", "rain")
    text = json.dumps(made)
    assert read_json(text, json.dumps(workflow))["prompt"] == "fox"


def test_loaders_and_pipes_of_node_packs() -> None:
    loader = node(
        "Efficient Loader",
        **{"ckpt_name": "e.safetensors", "positive": "fox", "negative": "rain"},
        **{"empty_latent_width": 320, "empty_latent_height": 256},
    )
    made = fed(["20", 1], ["20", 2], n20=loader)
    made["3"]["inputs"].update(latent_image=["20", 3], model=["20", 0])
    found = read_graph(made)
    assert (found["prompt"], found["negative_prompt"]) == ("fox", "rain")
    assert (found["width"], found["height"]) == (320, 256)
    assert found["model"] == "e.safetensors"

    stack = node("Apply ControlNet Stack", positive=["20", 1], negative=["20", 2])
    assert sides(fed(["21", 0], ["21", 1], n20=loader, n21=stack)) == ("fox", "rain")

    context = node("Context (rgthree)", model=["4", 0], **BOTH)
    more = node("Context (rgthree)", base_ctx=["20", 0], seed=5)
    for made in (
        fed(["20", 4], ["20", 5], n20=context),
        fed(["21", 4], ["21", 5], n20=context, n21=more),
    ):
        assert sides(made) == ("fox", "rain")

    pipe = node("ToBasicPipe", model=["4", 0], **BOTH)
    out = node("FromBasicPipe", basic_pipe=["20", 0])
    assert sides(fed(["21", 3], ["21", 4], n20=pipe, n21=out)) == ("fox", "rain")

    easy = {
        "1": node("easy fullLoader", ckpt_name="z", positive="fox", negative="rain"),
        "2": node("easy preSampling", pipe=["1", 0], seed=8, steps=9, cfg=2.0),
        "3": node("easy kSampler", pipe=["2", 0]),
    }
    found = read_graph(easy)
    assert (found["prompt"], found["negative_prompt"], found["seed"]) == (
        *("fox", "rain", 8),
    )
    assert (found["steps"], found["model"]) == (9, "z")


@pytest.mark.parametrize(
    ("kind", "inputs", "prompt"),
    [
        ("ConditioningSetTimestepRange", {"conditioning": ["6", 0]}, "fox"),
        ("ControlNetApply", {"conditioning": ["6", 0], "image": ["9", 0]}, "fox"),
        ("FluxGuidance", {"conditioning": ["6", 0], "guidance": 3.5}, "fox"),
        ("ConditioningZeroOut", {"conditioning": ["6", 0]}, ""),
        ("Unknown", {"cond_in": ["6", 0], "strength": 1.0}, "fox"),
        ("Unknown", {"image": ["9", 0], "strength": 1.0}, ""),
        ("Reroute", {"": ["6", 0]}, "fox"),
        (
            "ConditioningCombine",
            {"conditioning_2": ["21", 0], "conditioning_1": ["6", 0]},
            "fox\nhat",
        ),
        (
            "ConditioningConcat",
            {"conditioning_from": ["21", 0], "conditioning_to": ["6", 0]},
            "fox\nhat",
        ),
        ("CLIPTextEncodeSDXL", {"text_g": "fox", "text_l": "fox", "width": 9}, "fox"),
        ("CLIPTextEncodeSDXL", {"text_g": "fox", "text_l": "hat"}, "fox\nhat"),
        ("CLIPTextEncodeFlux", {"clip_l": "fox", "t5xxl": "a fox"}, "fox\na fox"),
        ("Any Switch (rgthree)", {"any_02": ["21", 0], "any_01": ["6", 0]}, "fox"),
        (
            "CR Conditioning Input Switch",
            {"Input": 2, "conditioning1": ["6", 0], "conditioning2": ["21", 0]},
            "hat",
        ),
        ("ComfySwitchNode", {"switch": False, "on_false": ["21", 0]}, "hat"),
        ("ImpactSwitch", {"select": 1, "input1": ["6", 0], "input2": ["21", 0]}, "fox"),
        ("ImpactSwitch", {"select": ["99", 0], "input1": ["6", 0]}, ""),
    ],
)
def test_conditioning_is_followed_by_its_meaning(kind, inputs, prompt) -> None:
    extra = node("CLIPTextEncode", text="hat", clip=["4", 1])
    made = fed(["20", 0], ["7", 0], n20=node(kind, **inputs), n21=extra)
    assert sides(made) == (prompt, "rain")


@pytest.mark.parametrize(
    ("kind", "inputs", "prompt"),
    [
        ("PrimitiveStringMultiline", {"value": "fox"}, "fox"),
        ("String Literal", {"string": "fox"}, "fox"),
        ("easy positive", {"positive": "fox"}, "fox"),
        ("ShowText|pysssss", {"text": ["21", 0], "text_0": "fox"}, "fox"),
        ("ShowText|pysssss", {"text": ["21", 0]}, "hat"),
        (
            "ImpactWildcardProcessor",
            {"wildcard_text": "{a}", "populated_text": "a"},
            "a",
        ),
        (
            "StringConcatenate",
            {"string_a": "fox", "string_b": ["21", 0], "delimiter": ", "},
            "fox, hat",
        ),
        ("JoinStrings", {"string1": "fox", "string2": "x", "delimiter": " "}, "fox x"),
        ("CR Text Concatenate", {"text2": "b", "text1": "a", "separator": "+"}, "a+b"),
        (
            "Text Concatenate",
            {"delimiter": "\\n", "text_a": "a", "text_b": "", "text_d": ["21", 0]},
            "a\nhat",
        ),
        ("StringConcatenate", {"string_a": "a", "string_b": ["22", 0]}, ""),
        (
            "StringReplace",
            {"string": "a fox", "find": "fox", "replace": "cat"},
            "a cat",
        ),
        ("RegexReplace", {"string": "a fox", "regex_pattern": ".", "replace": "x"}, ""),
        (
            "Text Input Switch",
            {"boolean": False, "text_a": "fox", "text_b": ["21", 0]},
            "hat",
        ),
        ("OllamaGenerate", {"prompt": "describe a fox", "model": "x"}, ""),
        ("DPRandomGenerator", {"text": "{a|b} fox", "seed": 4}, ""),
        ("ImpactWildcardProcessor", {"wildcard_text": "{a}", "populated_text": ""}, ""),
        (
            "StringFunction|pysssss",
            {"action": "append", "tidy_tags": "yes", "text_a": "a", "text_b": "b"},
            "a, b",
        ),
        (
            "StringFunction|pysssss",
            {"action": "replace", "tidy_tags": "no", "text_a": "a", "text_b": "b"},
            "",
        ),
        ("WD14Tagger|pysssss", {"image": ["9", 0], "exclude_tags": "dog"}, ""),
        ("PreviewAny", {"source": ["21", 0]}, "hat"),
    ],
)
def test_texts_are_followed_and_joined(kind: str, inputs: Graph, prompt: str) -> None:
    made = worded(
        ["20", 0],
        n20=node(kind, **inputs),
        n21=node("String", string="hat"),
        n22=node("LLM", image=["9", 0], seed=3),
    )
    assert sides(made) == (prompt, "rain")
    assert read_graph(made)["seed"] == 11


def test_a_text_node_of_both_sides_and_one_of_many_outputs() -> None:
    styler = node("SDXLPromptStyler", text_positive="fox", text_negative="rain")
    made = worded(["20", 0], n20=styler)
    made["7"]["inputs"]["text"] = ["20", 1]
    assert sides(made) == ("fox", "rain")
    many = node("Text String", text="fox", text_b="rain", text_c="", text_d="")
    made = worded(["20", 0], n20=many)
    made["7"]["inputs"]["text"] = ["20", 1]
    assert sides(made) == ("fox", "rain")


@pytest.mark.parametrize(
    ("guider", "expected"),
    [
        (node("CFGGuider", cfg=3.5, model=["4", 0], **BOTH), ("fox", "rain", 3.5)),
        (node("BasicGuider", model=["4", 0], conditioning=["6", 0]), ("fox", "", None)),
        (
            node(
                "DualCFGGuider",
                **{"model": ["4", 0], "cond1": ["6", 0], "negative": ["7", 0]},
            ),
            ("fox", "rain", None),
        ),
        (
            node("BasicGuider", model=["4", 0], conditioning=["20", 0]),
            ("fox", "", 2.5),
        ),
    ],
)
def test_guiders(guider: Graph, expected: tuple[Any, ...]) -> None:
    made = graph(
        n3=node(
            "SamplerCustomAdvanced",
            **{"noise": ["30", 0], "guider": ["31", 0], "sampler": ["32", 0]},
            **{"sigmas": ["33", 0], "latent_image": ["5", 0]},
        ),
        n20=node("FluxGuidance", conditioning=["6", 0], guidance=2.5),
        n30=node("RandomNoise", noise_seed=["34", 0]),
        n31=guider,
        n32=node("KSamplerSelect", sampler_name="heun"),
        n33=node("BasicScheduler", steps=12, model=["4", 0]),
        n34=node("Seed (rgthree)", seed=77),
    )
    found = read_graph(made)
    assert (found["prompt"], found["negative_prompt"]) == expected[:2]
    assert found["guidance_scale"] == expected[2]
    assert (found["seed"], found["sampler"], found["steps"]) == (77, "heun", 12)
    assert (found["model"], found["width"]) == ("m.safetensors", 640)


def test_values_that_are_computed_are_not_guessed() -> None:
    made = graph(n20=node("MathExpression|pysssss", expression="a*2", a=["21", 0]))
    made["n21"] = node("INTConstant", value=3)
    made["3"]["inputs"].update(seed=["20", 0], steps=["20", 0])
    made["5"] = node("LatentUpscaleBy", samples=["22", 0], scale_by=2.0)
    made["22"] = node("EmptyLatentImage", width=64, height=64)
    found = read_graph(made)
    assert (found["seed"], found["steps"], found["width"]) == (None, None, None)
    assert found["prompt"] == "fox"


def editor_form(made: Graph, *, named: bool) -> Graph:
    """Return a graph as the editor keeps it; `named` as newer versions do."""
    nodes, links = [], []
    for name, each in made.items():
        inputs, values = [], []
        for key, value in each["inputs"].items():
            if isinstance(value, list):
                links.append([len(links), int(value[0]), value[1], int(name), 0, "X"])
                inputs.append({"name": key, "link": len(links) - 1})
                continue
            values.append(value)
            if key == "seed":
                values.append("randomize")
            if named:
                inputs.append({"name": key, "link": None, "widget": {"name": key}})
        kind = each["class_type"]
        nodes.append(
            {"id": int(name), "type": kind, "inputs": inputs, "widgets_values": values}
        )
    return {"nodes": nodes, "links": links, "version": 0.4}


@pytest.mark.parametrize("named", [False, True])
def test_the_editors_form_says_the_same(named: bool) -> None:
    made = fed(
        ["20", 0], ["20", 1], n20=node("ControlNetApplyAdvanced", **BOTH, strength=1)
    )
    assert read_graph(editor_form(made, named=named)) == read_graph(made)


def test_nodes_that_only_the_editor_knows() -> None:
    drawn = editor_form(graph(), named=True)
    drawn["links"] = [
        {"id": i, "origin_id": a, "origin_slot": b}
        for i, (_, a, b, *_rest) in enumerate(drawn["links"])
    ]
    links, nodes = drawn["links"], {each["id"]: each for each in drawn["nodes"]}

    def link(origin: int) -> int:
        links.append({"id": len(links), "origin_id": origin, "origin_slot": 0})
        return len(links) - 1

    def add(number: int, kind: str, origin: int | None, **more: Any) -> None:
        inputs = [] if origin is None else [{"name": "x", "link": link(origin)}]
        drawn["nodes"].append({"id": number, "type": kind, "inputs": inputs, **more})

    add(40, "PrimitiveNode", None, widgets_values=["cat", "fixed"])
    add(41, "SetNode", 40, widgets_values=["words"])
    add(42, "GetNode", None, widgets_values=["words"])
    add(43, "Reroute", 42)
    text = next(i for i in nodes[6]["inputs"] if i["name"] == "text")
    text["link"] = link(43)
    add(44, "ControlNetApply", None, mode=4, outputs=[{"type": "CONDITIONING"}])
    drawn["nodes"][-1]["inputs"] = [
        {"name": "image", "type": "IMAGE", "link": None},
        {"name": "conditioning", "type": "CONDITIONING", "link": link(6)},
    ]
    positive = next(i for i in nodes[3]["inputs"] if i["name"] == "positive")
    positive["link"] = link(44)
    assert sides(drawn) == ("cat", "rain")


def test_subgraphs_are_opened() -> None:
    """The encoders and a control net lie in one node, one of its texts as a field."""
    drawn = editor_form(graph(), named=True)
    inner = [n for n in drawn["nodes"] if n["id"] in (6, 7)]
    drawn["nodes"] = [n for n in drawn["nodes"] if n["id"] not in (6, 7)]
    for each, link in zip(inner, (0, 1), strict=True):
        next(i for i in each["inputs"] if i["name"] == "text")["link"] = link
        next(i for i in each["inputs"] if i["name"] == "clip")["link"] = None
    control = {
        **{"id": 8, "type": "ControlNetApplyAdvanced"},
        "inputs": [{"name": "positive", "link": 2}, {"name": "negative", "link": 3}],
    }
    ends = [(0, -10, 0, 6), (1, -10, 1, 7), (2, 6, 0, 8), (3, 7, 0, 8)]
    links = [
        {"id": i, "origin_id": a, "origin_slot": b, "target_id": c, "target_slot": 0}
        for i, a, b, c in ends
    ]
    links += [
        {"id": 4 + i, "origin_id": 8, "origin_slot": i, "target_id": -20}
        | {"target_slot": 1 - i}
        for i in (0, 1)
    ]
    group = {"id": "words", "nodes": [*inner, control], "links": links}
    drawn["definitions"] = {"subgraphs": [group]}
    fields = [
        {"name": "text", "link": None, "widget": {"name": "text"}},
        {"name": "other", "link": 90},
    ]
    drawn["nodes"] += [
        {"id": 6, "type": "words", "inputs": fields, "widgets_values": ["cat"]},
        {"id": 60, "type": "PrimitiveString", "widgets_values": ["fog"]},
    ]
    drawn["links"] = [
        each if each[3] != 3 or each[1] not in (6, 7) else [each[0], 6, 7 - each[1], 3]
        for each in drawn["links"]
    ] + [[90, 60, 0, 6, 1, "STRING"]]
    assert sides(drawn) == ("cat", "fog")
    group["nodes"] += [{"id": i, "type": "words"} for i in range(20, 30)]  # in itself
    start = time.process_time()
    read_graph(drawn)
    assert time.process_time() - start < 5


def test_a_chain_of_switches_and_doubled_links_ends_soon() -> None:
    start = time.process_time()
    for kind in ("Any Switch", "ConditioningCombine"):
        made = fed(["20", 0], ["20", 1])
        made["3"]["inputs"]["seed"] = ["20", 0]
        for number in range(20, 4000):
            after = [str(number + 1), 0]
            inputs = {"select": after, "input1": after, "conditioning_1": after}
            made[str(number)] = node(kind, **inputs, conditioning_2=after)
        assert sides(made) == ("", "")
    assert time.process_time() - start < 10


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text("apositve", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(st.integers(0, 9), st.just(0))
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        *("positive", "negative", "text", "conditioning", "latent_image", "guider"),
        *("string_a", "string_b", "delimiter", "seed", "pipe", "select", "input1", ""),
    ]
)
KINDS = st.sampled_from(
    ["KSampler", "ImpactSwitch", "CFGGuider", "CLIPTextEncode", "X"]
)
LINKS = st.tuples(st.integers(0, 9).map(str), st.integers(-2, 3)).map(list)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 9).map(str),
        st.fixed_dictionaries(
            {"class_type": KINDS, "inputs": st.dictionaries(NAMES, LINKS | ANY)}
        ),
    )
)
def test_no_graph_makes_it_fail(made: Graph) -> None:
    found = read_graph(made)
    assert not found or isinstance(found["prompt"], str)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_sides_never_mix_along_a_random_chain(data: Any) -> None:
    """However many nodes lie between, in whichever order, each side keeps its words."""
    made, positive, negative = graph(), ["6", 0], ["7", 0]
    for number in range(20, 20 + data.draw(st.integers(0, 8))):
        kind = data.draw(st.sampled_from(["both", "crossed", "one", "reroute", "pipe"]))
        name = str(number)
        if kind in ("both", "crossed"):
            made[name] = node(
                data.draw(st.sampled_from(["ControlNetApplyAdvanced", "Unknown"])),
                **{"strength": 1.0, "positive": positive, "negative": negative},
            )
            positive, negative = [name, 0], [name, 1]
            if kind == "crossed":
                other = f"{name}0"
                made[other] = node(
                    "ControlNetApplyAdvanced", positive=negative, negative=positive
                )
                positive, negative = [other, 1], [other, 0]
        elif kind == "pipe":
            made[name] = node("ToBasicPipe", positive=positive, negative=negative)
            made[f"{name}0"] = node("FromBasicPipe_v2", basic_pipe=[name, 0])
            positive, negative = [f"{name}0", 4], [f"{name}0", 5]
        else:
            ways = {"one": "conditioning", "reroute": ""}
            made[name] = node("Some", **{ways[kind]: positive})
            made[f"{name}0"] = node("Some", **{ways[kind]: negative})
            positive, negative = [name, 0], [f"{name}0", 0]
    made["3"]["inputs"].update(positive=positive, negative=negative)
    shuffled = dict(data.draw(st.permutations(list(made.items()))))
    assert sides(shuffled) == ("fox", "rain")
