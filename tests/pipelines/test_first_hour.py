"""`docs/first-hour.md` is followed as it is printed, with a small run in place of the one that takes minutes."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.pipelines.cli import main
from headrace.pipelines.recipe.config import load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "first-hour.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(shell|python)( title=\"wrong on purpose\")?\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.mark.ray
@pytest.mark.timeout(420)
def test_the_first_hour_goes_as_it_is_printed(
    finished: Any, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / "runs").mkdir()
    names: dict[str, object] = {}
    said = ""
    for language, is_wrong, text in BLOCKS:
        if language == "python":
            exec(compile(text, "first-hour.md", "exec"), names)  # noqa: S102  (our own page)
            continue
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["headrace", "run"]:
                load(words[2])  # the run of the page is right, and this one stands for it
                os.symlink(finished.path, in_folder / words[words.index("--out") + 1])
            elif words[0] == "cp":
                Path(words[2]).write_text(Path(words[1]).read_text())
            else:
                assert words[0] == "headrace", line
                done = CliRunner().invoke(main, words[1:], catch_exceptions=False)
                # A doctor who finds something wrong with this machine has done its work.
                assert done.exit_code == (2 if is_wrong else 0) or words[1] == "doctor", f"{line}: {done.output}"
                said += done.output
    for told in (
        "darcy_fno is right: darcy-fno, 3,000 training, 60 validation, 150 test samples",
        'error surrogate.kind is "fnoo"; expected one of fno, mlp',
        "prediction.npy: outputs (1, 1, 1, 32, 32) (samples, times, channels, grid)",
    ):
        assert told in PAGE and told in said
    assert (in_folder / "prediction.npy").exists() and 0.0 < float(capsys.readouterr().out.split()[-1]) < 2.0
