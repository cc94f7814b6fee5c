"""Nothing is lost and no file is half-written, whenever the program is killed.

`kill_driver.py` lives and kills. NAPARI_OVAM_KILL_SEED draws other moments.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform == "darwin",
    reason="lives are forked, which Windows cannot and macOS should not",
)
SEED = int(os.environ.get("NAPARI_OVAM_KILL_SEED", "0"))


def killed(what: str, folder: Path, lives: int) -> list[dict[str, int]]:
    """Live and be killed; return what was checked after each kill."""
    driver = Path(__file__).parents[1] / "kill_driver.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # no threads before a fork
    done = subprocess.run(
        [sys.executable, str(driver), what, str(folder), str(SEED), str(lives)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    print(f"seed {SEED}, {what}: {done.stdout}")
    assert done.returncode == 0, f"seed {SEED}, {what}:\n{done.stderr[-6000:]}"
    reports = json.loads(done.stdout)
    assert len(reports) == lives
    return reports


def test_edits_outlast_kills_while_painting_saving_and_exporting(tmp_path):
    reports = killed("edit", tmp_path, 30)
    # Not every life grows old enough to have something that must be there.
    assert any(report["checked"] for report in reports)
    assert sum(report["temporary"] > 0 for report in reports) > 5  # hit while writing
    assert reports[-1]["exports"] > 4


def test_edits_outlast_kills_while_labels_are_proposed_and_tokens_stored(tmp_path):
    reports = killed("model", tmp_path, 9)
    assert reports[-1]["proposed"] > 0
    assert reports[-1]["tokens"] > 0


def test_edits_older_than_three_seconds_outlast_kills_with_the_real_delay(tmp_path):
    reports = killed("real", tmp_path, 4)
    assert all(report["checked"] > 0 for report in reports)
