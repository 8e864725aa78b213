"""docs/time-dependent.md says what an equation of one's own has to have, as its example has it."""

import re
from pathlib import Path

from headrace.solvers import AbstractSemilinear
from headrace.solvers.problems.allen_cahn import AllenCahn

PAGE = Path(__file__).parents[3] / "docs" / "time-dependent.md"


def test_the_page_names_what_the_class_asks_for_and_what_its_example_has() -> None:
    words = PAGE.read_text(encoding="utf-8").partition("## An equation of your own")[2].partition("\n## ")[0]
    quoted = re.findall(r"`([\w./]+)`", words)
    named = {word for word in quoted if "." not in word and not word.startswith("Abstract")}
    assert named >= AbstractSemilinear.__abstractmethods__, "what has to be there"
    assert "solvers/problems/allen_cahn.py" in quoted
    written = {name for name in vars(AllenCahn) if not name.startswith(("_", "model_"))} | {"kind", "start"}
    assert named >= written, "what the example has"
    there = set(dir(AbstractSemilinear)) | AbstractSemilinear.model_fields.keys() | {"kind"}
    assert named <= there, "nothing that the class does not know"
