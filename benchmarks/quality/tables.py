"""Write the tables of docs/quality.md from the results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"


def write_tables(results: dict[str, Any]) -> None:
    """Replace what stands between <!-- table: NAME --> and <!-- end -->."""
    text = PAGE.read_text()
    for name, part in results.items():
        found = _presence(part) if name == "presence" else _scores(part)
        text = re.sub(
            rf"(<!-- table: {name} -->\n).*?(<!-- end -->)",
            lambda match, found=found: match[1] + found + match[2],
            text,
            flags=re.DOTALL,
        )
    PAGE.write_text(text)


def _about(part: dict[str, Any]) -> str:
    return (
        f"\n*Model {part['model']}, {part['date']}, torch {part['torch']}, "
        f"{part['machine']}.*\n"
    )


def _scores(part: dict[str, Any]) -> str:
    lines = [
        "| what | source | layers | threshold | annotated | mIoU | ± | boundary F "
        "| alone | in pairs | on the annotated | s to optimize |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in part["rows"]:
        lines.append(
            f"| {row['title']} | {row['source']} | {row['layers']} | {row['rule']} "
            f"| {row['annotated_images']} | {row['iou']:.3f} "
            f"| {row['iou_interval']:.3f} | {row['boundary']:.3f} "
            f"| {row['alone']:.3f} | {row['in_pairs']:.3f} "
            f"| {row['annotated']:.3f} | {row['seconds']:.2f} |"
        )
    return "\n".join(lines) + "\n" + _about(part)


def _presence(part: dict[str, Any]) -> str:
    lines = [
        "| source | score | precision | recall | area under the curve "
        "| questions (present) |",
        "|---|---|---|---|---|---|",
    ]
    for row in part["rows"]:
        lines.append(
            f"| {row['source']} | {row['score']} | {row['precision']:.2f} "
            f"| {row['recall']:.2f} | {row['auc']:.3f} "
            f"| {row['questions']} ({row['present']}) |"
        )
    return "\n".join(lines) + "\n" + _about(part)
