"""Text in any script: fonts for what the default font lacks, and labels that stay short and distinct."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

from experiments.artifacts.plotting import font_manager, quiet

FAMILY = "DejaVu Sans"  # it comes with Matplotlib
# Stands for a character that no installed font has.
UNKNOWN = "?"
# Columns of a class's label; a wide character takes two.
LABEL_WIDTH = 24
NUMBERS_NOTE = "\nclass and a number: no installed font has the name"


def missing_characters(text: str) -> frozenset[str]:
    """Return the characters of a text that the default font lacks."""
    return frozenset(text) - default_characters() - {"\n"}


@cache
@quiet()
def find_fallbacks(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Return installed families that have these characters, and the characters that none of them has."""
    found = {name: characters_of(name) & characters for name in sorted(font_manager.get_font_names())}
    chosen: list[str] = []
    while useful := {name: len(has & characters) for name, has in found.items() if has & characters}:
        chosen.append(max(useful, key=lambda name: useful[name]))
        characters -= found[chosen[-1]]
    return chosen, characters


def label_classes(classes: Sequence[str], width: int = LABEL_WIDTH) -> tuple[list[str], str]:
    """Return a label for each class, no two of them equal, and a note for the title.

    A long name keeps its beginning and its end. Names that would then be equal get the number of their class,
    and a name that no installed font can draw becomes that number; the note says so.
    """
    unknown = find_fallbacks(missing_characters("".join(classes)))[1]
    names = [f"class {k}" if unknown & set(name) else name for k, name in enumerate(classes)]
    counts = Counter(shorten(name, width) for name in names)
    labels = []
    for k, name in enumerate(names):
        label, number = shorten(name, width), f" ({k})"
        labels.append(label if counts[label] == 1 else shorten(name, width - len(number)) + number)
    return labels, NUMBERS_NOTE if names != [*classes] else ""


def shorten(text: str, width: int) -> str:
    """Return a text that is at most `width` columns wide: its beginning and its end, with … between them."""
    if sum(map(_columns, text)) <= width:
        return text
    start, end = _fitting(text, width // 2), _fitting(text[::-1], (width - 1) // 2)
    return text[:start] + "…" + text[len(text) - end :]


def _fitting(text: str, width: int) -> int:
    """Return how many of the first characters fit into a number of columns."""
    count = 0
    for character in text:
        width -= _columns(character)
        if width < 0:
            break
        count += 1
    return count


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


@cache
def default_characters() -> frozenset[str]:
    """Return the characters of the default font."""
    return characters_of(FAMILY)


def characters_of(family: str) -> frozenset[str]:
    """Return the characters of a family; none if its file cannot be read."""
    try:
        path = font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
