"""Plain English, and names that say what they hold, as tools/plain_english.py lists them."""

from __future__ import annotations

import sys

import pytest

from tests.helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import plain_english


def test_the_pages_use_plain_words() -> None:
    uses = plain_english.page_uses()
    assert [use for use in uses if use.path != "docs/reference.md"] == []  # which repeats the package's own words


def test_the_package_uses_plain_words() -> None:
    assert list(plain_english.package_uses()) == [], "python tools/plain_english.py lists the words to use"


def test_the_names_of_the_package_say_what_they_hold() -> None:
    assert list(plain_english.name_uses()) == []


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
