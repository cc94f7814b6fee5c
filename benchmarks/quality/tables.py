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
        found = _TABLES.get(name, _scores)(part)
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
        source = row["source"] + " × word" * row["joint"]
        lines.append(
            f"| {row['title']} | {source} | {row['layers']} | {row['rule']} "
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


def _together(part: dict[str, Any]) -> str:
    lines = [
        "| what | annotated | mIoU | ± | boundary F | alone | in pairs | masks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in part["rows"]:
        lines.append(
            f"| {row['title']} | {row['annotated_images']} | {row['iou']:.3f} "
            f"| {row['iou_interval']:.3f} | {row['boundary']:.3f} "
            f"| {row['alone']:.3f} | {row['in_pairs']:.3f} | {row['masks_scored']} |"
        )
    return "\n".join(lines) + "\n" + _about(part)


def _downstream(part: dict[str, Any]) -> str:
    lines = [
        "| images | masks | how many | masks' mIoU | network's mIoU | ratio to exact |",
        "|---|---|---|---|---|---|",
    ]
    for row in part["rows"]:
        agreement = "" if row["agreement"] is None else f"{row['agreement']:.3f}"
        lines.append(
            f"| {row['images_from']} | {row['masks']} | {row['images']} | {agreement} "
            f"| {row['miou']:.3f} | {row['ratio']:.3f} |"
        )
    return "\n".join(lines) + "\n" + _about(part)


def _doubts(part: dict[str, Any]) -> str:
    row = part["rows"][0]
    budgets = list(row["errors_in"])
    lines = [
        "| area under the curve | "
        + " | ".join(f"errors in the {float(b):.0%} most doubtful" for b in budgets)
        + " | rank correlation with mIoU | images |",
        "|" + "---|" * (len(budgets) + 3),
        f"| {row['auc']:.3f} | "
        + " | ".join(f"{row['errors_in'][b]:.2f}" for b in budgets)
        + f" | {row['rank_correlation']:.2f} | {row['images']} |",
    ]
    return "\n".join(lines) + "\n" + _about(part)


_TABLES = {
    "presence": _presence,
    "downstream": _downstream,
    "doubts": _doubts,
    "together": _together,
    "together_generated": _together,
}
