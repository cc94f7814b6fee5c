"""The index is written as JSON of one shape, whatever of it was written before."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_ovam.project.index import INDEX, Index, Sample, write_index

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.just("\u2028"))


@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(titles=st.lists(TEXTS, max_size=4))
def test_samples_are_written_as_json_writes_them(
    tmp_path: Path, titles: list[str]
) -> None:
    samples = {
        f"s{i}": Sample(f"s{i}", provenance={"title": title, "seeds": [i]})
        for i, title in enumerate(titles)
    }
    for _ in range(2):  # as new ones, and as some that were written already
        write_index(tmp_path, Index(samples=samples, program="test"))
        text = (tmp_path / INDEX).read_text("utf-8")
        content = json.loads(text)
        wanted = [{**asdict(s), "absent": list(s.absent)} for s in samples.values()]
        assert content["samples"] == wanted
        assert text == json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        samples |= {
            n: replace(s, status="edited") for n, s in samples.items() if n > "s0"
        }
