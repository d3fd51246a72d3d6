"""What a key costs where a schema of 20 kB is typed: the work of reading it, anew and with what the
reading before it left.

    python -m benchmarks.typing_schemas

The schema is that of `make measure-studio`: block after block. Each key makes a text that was not
there before. Prints the processor time of a reading, median and quickest, both ways taking turns.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Final

from nprdsl.grammar.analysis import analyse
from nprdsl.grammar.resolve import Kept

SECTIONS: Final = 56
KEYS: Final = 25
FILE: Final = "schema.lark"
ALLOCATIONS: Final = 200_000  # as in the process that reads for the studio
SECTION: Final = """
// Section {0}: a plan, a step for each of its items, side by side, and what comes of them.
section_{0}: map{{list_{0}}} process{{plan_{0}, step_{0}}} reduce{{takeaway_{0}}}
list_{0}: "<guideline>" plan_{0}~1..4 "</guideline>"
plan_{0}: "<plan>" LABEL ":" TEXT "</plan>"
step_{0}: "<step>" LABEL ":" TEXT "</step>"
takeaway_{0}: "<takeaway>" TEXT "</takeaway>"
"""


def schema() -> str:
    numbers = range(1, SECTIONS + 1)
    start = " ".join(f"section_{n}" for n in numbers)
    head = "%import .parallel (map, process, reduce)\n%declare TEXT\nLABEL: /[1-9]/\n"
    return f"{head}start: {start}\n{''.join(SECTION.format(n) for n in numbers)}"


def edits(text: str) -> dict[str, Callable[[int], str]]:
    """The texts that the keys of a kind make, by number."""
    tag, use, line = 'step_30: "<step', 'list_30: "<guideline>" pl', "// Section 5:"
    return {
        "a letter in a tag": lambda key: text.replace(tag, tag + word(key)),
        "a letter in a name that is then undefined": lambda key: text.replace(use, use + word(key)),
        "a new line at section 5": lambda key: text.replace(line, "\n" * (key + 1) + line),
    }


def word(number: int) -> str:
    return "".join(chr(ord("a") + digit) for digit in divmod(number, 26))


def worked(text: str, kept: Kept | None) -> float:
    """Milliseconds."""
    begin = time.process_time()
    analyse(text, FILE, kept=kept)
    return 1000 * (time.process_time() - begin)


def main() -> None:
    text, kept = schema(), Kept()
    for _ in range(3):
        analyse(f"{text}// \n", FILE, kept=kept)
    gc.freeze()
    gc.set_threshold(ALLOCATIONS)
    print(f"{len(text) / 1000:.1f} kB; ms of work: median, the quickest of {KEYS}")
    for what, edit in edits(text).items():
        analyse(text, FILE, kept=kept)
        times: dict[str, list[float]] = {"anew": [], "kept": []}
        for key in range(KEYS):
            times["anew"].append(worked(edit(2 * key), None))
            times["kept"].append(worked(edit(2 * key + 1), kept))
        for how, found in times.items():
            print(f"{what}, {how}: {statistics.median(found):.0f}, {min(found):.0f}")


if __name__ == "__main__":
    main()
