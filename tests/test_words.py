"""Plain English and names that say what they hold: tools/plain_english.py counts the rest, which may only shrink."""

from __future__ import annotations

import sys

import pytest

from tests.helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import plain_english

# Lower these when you have rewritten some; nothing may be added.
WORDS_LEFT = 8  # in strings, docstrings and comments of the package
NAMES_LEFT = 11  # variables and parameters of the package


def test_the_pages_use_plain_words() -> None:
    uses = plain_english.page_uses()
    assert [use for use in uses if use.path != "docs/reference.md"] == []  # which repeats the package's own words


def test_no_more_such_words_come_into_the_package() -> None:
    assert len(list(plain_english.package_uses())) <= WORDS_LEFT, (
        "python tools/plain_english.py lists them, and the words to use"
    )


def test_no_more_such_names_come_into_the_package() -> None:
    assert len(list(plain_english.name_uses())) <= NAMES_LEFT, "python tools/plain_english.py lists them"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The file is written\n    # anew.", ["anew"]),
        ("There is no such file, and it is no longer needed.", []),
        ("It is\nno file that was told.", ["told", "is no"]),
        ("What is not there is made otherwise.", ["what is not", "otherwise"]),
    ],
)
def test_words_are_found_across_lines(text: str, words: list[str]) -> None:
    assert [use.word for use in plain_english.uses_in(text, "page")] == words


def test_the_line_of_a_word_is_where_it_stands() -> None:
    assert [use.line for use in plain_english.uses_in("one\ntwo\n  it is\n no file", "page", line=10)] == [12]
