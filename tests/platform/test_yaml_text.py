"""YAML of any sender: right, or refused in a moment with words, never a traceback and never a long wait."""

import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.pipelines.cli import main
from headrace.platform.errors import InputError
from headrace.platform.yaml_text import MAX_CHARACTERS, read_yaml

# Ten lines that stand for 9^10 words; the same with merged mappings, and with one long word.
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: v}}\n" for n in range(1, 10)
)
LONG_WORD = f"a: &a {'x' * 10_000}\nb: [{', '.join(['*a'] * 1000)}]\n"


@pytest.mark.parametrize("bomb", [BOMB, MERGES, LONG_WORD], ids=["lists", "merges", "word"])
def test_what_stands_for_too_much_is_refused_at_once(bomb: str) -> None:
    began = time.process_time()
    with pytest.raises(InputError, match=r"^recipe is a short text for very much; expected YAML whose aliases"):
        read_yaml(bomb, "recipe")
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    "command",
    [["check"], ["run"], ["submit", "--address", "http://there"], ["import", "x.npy", "--out", "new", "--layout"]],
)
def test_no_command_is_kept_busy_by_a_recipe(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(f"{BOMB}data: {{problem: *a9}}\n")
    began = time.process_time()
    done = CliRunner().invoke(main, [*command, str(tmp_path / "bomb.yaml")], catch_exceptions=False)
    assert done.exit_code == 2 and "a short text for very much" in done.stderr
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize("value", [BOMB.replace("\n", "\n  "), "[" * 5000, "9" * 5000, "2024-13-45"])
def test_an_override_is_no_way_around(value: str) -> None:
    done = CliRunner().invoke(main, ["check", "smoke", f"data.levels={value}"], catch_exceptions=False)
    assert done.exit_code == 2 and "expected a YAML value" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply, or in itself"),
        ("a: &a {b: {<<: *a}}", "nested too deeply, or in itself"),
        ("9" * 5000, "is broken (Exceeds the limit"),
        ("2024-13-45", "is broken (month must be in 1..12)"),
        ("!!int ''", "is broken"),
        ("!!timestamp never", "is broken"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: 1\na: 2", 'the key "a" stands twice'),
        ("{[1]: 2}", "unhashable"),
        ("a: [", "recipe, line 1"),
        ("a: 1\n---\nb: 2", "recipe, line 2"),
        ("x" * (MAX_CHARACTERS + 1), "1,000,001 characters long; expected at most 1,000,000"),
    ],
)
def test_what_is_no_yaml_is_said(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_yaml(text, "recipe")
    assert words in str(caught.value)


def test_aliases_and_merges_are_fine() -> None:
    assert read_yaml("a: &a {b: 1}\nc: {<<: *a, d: [*a, *a]}\n", "recipe") == {
        "a": {"b": 1},
        "c": {"b": 1, "d": [{"b": 1}, {"b": 1}]},
    }
    # What is merged into another mapping has a merged key of its own in a place that is read later.
    nested = "a: &a {k: 1}\nx: {y: &b {<<: *a, k: 2}}\nc: {<<: *b}\n"
    assert read_yaml(nested, "recipe") == {"a": {"k": 1}, "x": {"y": {"k": 2}}, "c": {"k": 2}}
    assert read_yaml("", "recipe") is None


def test_a_file_that_is_no_recipe_is_not_read_whole(tmp_path: Path) -> None:
    huge = tmp_path / "disk.img"
    with huge.open("wb") as file:
        file.truncate(10**12)
    done = CliRunner().invoke(main, ["check", str(huge)], catch_exceptions=False)
    assert done.exit_code == 2 and "1,000,000,000,000 characters long" in done.stderr
