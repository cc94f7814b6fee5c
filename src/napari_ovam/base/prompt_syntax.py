"""What web UIs read in a prompt beside its words: weights, tags and keywords.

The pipelines here take a prompt as it stands: "(hat:1.2)" is the words "(", "hat", ":",
"1.2" and ")" to them.
"""

import re

# AUTOMATIC1111, ComfyUI, NovelAI, InvokeAI:
# https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features
_TOKEN = re.compile(
    r"""(?P<escaped>\\[()\[\]{}<>:|])
    |(?P<tag><\w+:[^<>\n]{1,300}>|\bembedding:[^\s,()<>]+)
    |(?P<keyword>\b(?:BREAK|AND|ADDCOMM|ADDBASE|ADDROW|ADDCOL)\b)
    |(?P<open>[(\[{])
    |(?P<close>(?::\s*[+-]?\d*\.?\d+\s*)?[)\]}](?:\++|-+(?!\w)|\d*\.\d+)?)
    |(?P<scale>(?<=\w\w)(?:\++|--+)(?=[\s,.;)\]}]|\Z))  # InvokeAI's hat++
    |(?P<mark>[:|])""",
    re.VERBOSE,
)
_WEIGHTED = re.compile(r"-?\d+(?:\.\d+)?::(.*?)::")  # NovelAI's 1.3::hat::
_ALTERNATIVE = re.compile(r":\s*\d*\.?\d+\s*(?=\bAND\b|\Z)")  # a dog :1.2 AND a cat
_PAIRS = {")": "(", "]": "[", "}": "{"}


def plain_prompt(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Take out of a prompt what is not its words.

    Weights and emphasis `(hat:1.2)`, `((hat))`, `[hat]`, `{hat}`, `(hat)1.2` and
    `1.2::hat::`, and what changes on the way, `[cat:dog:0.5]` and `[cat|dog]`, leave
    all their words. `<lora:grass:0.8>` and its kin and `embedding:name` go.
    `BREAK` and `AND` become commas. `\(` is the sign itself.

    Returns
    -------
    str
        The prompt; as it was where nothing is taken out.
    tuple of str
        What was taken out, as it stood there, each once.
    """
    removed: dict[str, None] = {}

    def cut(found: re.Match[str]) -> str:
        removed[found[0].strip()] = None
        return found[1] if found.lastindex else " "

    given, text = text, _WEIGHTED.sub(cut, text)
    if re.search(r"\bAND\b", text):
        text = _ALTERNATIVE.sub(cut, text)
    pieces, places, opened = (
        list[str](),
        list[int](),
        list[tuple[str, int, list[int]]](),
    )
    end = 0
    for found in _TOKEN.finditer(text):
        pieces.append(text[end : found.start()])
        end, kind, sign = found.end(), found.lastgroup, found[0]
        places.append(found.start())
        if kind in ("tag", "keyword", "scale"):
            removed[sign] = None
            sign = "," if kind == "keyword" else " "
        elif kind == "escaped":
            removed[sign] = None
            sign = sign[1]
        elif kind == "open":
            opened.append((sign, len(pieces), []))
        elif kind == "mark" and opened:
            opened[-1][2].append(len(pieces))
        elif kind == "close":
            bracket = next(c for c in sign if c in _PAIRS)
            if opened and opened[-1][0] == _PAIRS[bracket]:
                _, start, marks = opened.pop()
                pieces[start] = sign = " "
                for mark in marks if bracket != ")" else ():
                    pieces[mark] = " "
                if not opened:
                    removed[text[places[start // 2] : end]] = None
        pieces.append(sign)
    plain = "".join([*pieces, text[end:]])
    if not removed:
        return given, ()
    return _tidy(plain), tuple(removed)


def _tidy(text: str) -> str:
    """Put single spaces and commas where something was taken out."""
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r" ?,(?:[ ,\n]*,)* ?(?=\S)", ", ", text)
    return re.sub(r" +(?=[,.;!?\n]|$)|(?<=\n) +", "", text).strip(" ,\n")
