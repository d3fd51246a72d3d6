"""The fields of a row: which is the prompt, which the answer, and what may stand in them.

A row comes as the source has it; a caller gets the names of its fields and their values, checked.
Names are found among well-known ones, or the caller gives them. Where two fields could be meant, or
none, the source is refused with the names that it has; nothing is guessed. Rows of the published
sets are brought to one form first: ORZ's turns of a conversation (arXiv:2503.24290), and answers
that stand inside another field. Without a field for the answer, the box in a `solution` is it
(MATH, Minerva).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from nprdsl.trainers.data.sources import AUTO, SourceError
from nprdsl.trainers.grading.answers import answer_of
from nprdsl.trainers.grading.grids import Grid, grid_of
from nprdsl.trainers.grading.quantities import EXACT, Tolerance

PROMPTS: Final = ("prompt", "problem", "question", "input", "query", "instruction")
ANSWERS: Final = (
    "answer",
    "ground_truth",
    "final_answer",
    "expected_answer",
    "gold",
    "target",
    "label",
    "reward_model.ground_truth",
)
SOLUTION: Final = "solution"  # holds the answer in a box, where a source has no other
TRACES: Final = ("trace", "completion", "response")
IDS: Final = ("id", "unique_id", "problem_id", "problem_idx", "uid", "idx")
ERROR: Final = "error"
UNIT: Final = "unit"
PUZZLE: Final = "puzzle"
CONTEXTS: Final = (PUZZLE, "context")  # stands before the question
CHOICES: Final = ("choices", "options")
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of choices

Record = Mapping[str, Any]


class RowError(ValueError):
    """What is wrong with a row."""


def record(value: Any) -> Record:
    """A row as fields; the turns of a conversation become `prompt` and `answer`."""
    if isinstance(value, Mapping):
        if set(value) == {"0", "1"}:  # what `datasets` makes of an array of two turns
            return _conversation([value["0"], value["1"]])
        return value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return _conversation(value)
    raise RowError(f"the row is of type {type(value).__name__}, not an object with fields")


def find(record: Record, name: str) -> Any:
    """The value of a field, also inside another (`reward_model.ground_truth`), or under the name in
    other letters (AIME 2024: `Problem`); None if absent."""
    if name in record:
        return record[name]
    for field in record:
        if isinstance(field, str) and field.casefold() == name:
            return record[field]
    outer, dot, inner = name.partition(".")
    within = record.get(outer)
    return find(within, inner) if dot and isinstance(within, Mapping) else None


# -- names -----------------------------------------------------------------------------------------


def choose(
    name: str, records: Sequence[Record], known: Sequence[str], given: str, what: str
) -> str:
    """The field that is `what` in the rows of the source `name`. Raises SourceError."""
    if given != AUTO:
        if not _known([given], records):
            raise SourceError(f"`{name}` has no field `{given}`; {_listed(records)}")
        return given
    fields = _known(known, records)
    if len(fields) == 1:
        return fields[0]
    option = f"name it with {what}_field"
    if not fields and known is ANSWERS and _known([SOLUTION], records):
        return SOLUTION
    if not fields:
        raise SourceError(
            f"no field of `{name}` is known as the {what}; {_listed(records)}; {option}"
        )
    several = " and ".join(f"`{field}`" for field in fields)
    raise SourceError(f"`{name}` has {several}, each may be the {what}; {option}")


def first(name: str, records: Sequence[Record], known: Sequence[str], given: str = AUTO) -> str:
    """The first of the known fields that some row has, "" if none has one; a field that was named
    must be there. Raises SourceError."""
    if given != AUTO:
        return choose(name, records, known, given, "field")
    return next(iter(_known(known, records)), "")


def _known(names: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Those of the names that are fields of some row."""
    return [name for name in names if any(find(record, name) is not None for record in records)]


def _conversation(turns: Sequence[Any]) -> Record:
    """ORZ: what the human says, and the ground truth of the assistant."""
    said = [turn for turn in turns if isinstance(turn, Mapping)]
    human = [turn for turn in said if turn.get("from") == "human"]
    assistant = [turn for turn in said if turn.get("from") == "assistant"]
    if len(human) != 1 or len(assistant) != 1 or len(turns) != 2:
        raise RowError(
            "the row is an array, but not of one `human` and one `assistant` turn "
            '([{"from": "human", …}, {"from": "assistant", …}])'
        )
    truth = find(assistant[0], "ground_truth.value")
    if truth is None:
        raise RowError("the turn of the `assistant` has no `ground_truth` with a `value`")
    return {"prompt": human[0].get("value"), "answer": truth}


def _listed(records: Sequence[Record]) -> str:
    names = dict.fromkeys(field for record in records for field in record)
    return f"its fields are {', '.join(f'`{n}`' for n in names) or 'none'}"


# -- values; all raise RowError, `what` names the value --------------------------------------------


def text(what: str, value: object) -> str:
    """A text that is not blank."""
    if value is None:
        raise RowError(f"the {what} is missing")
    if not isinstance(value, str):
        raise RowError(f"the {what} is of type {type(value).__name__}, not a text")
    if not value.strip():
        raise RowError(f"the {what} is blank")
    return value


def prompt_text(value: object) -> str:
    """A text, or the one message of a chat with its user."""
    if not _is_list(value):
        return text("prompt", value)
    roles = [m.get("role") if isinstance(m, Mapping) else None for m in value]
    if roles != ["user"]:
        several = f"a list of {len(roles)}, not a text or one message of the user"
        raise RowError(f"the prompt is {several}")
    return text("prompt", value[0].get("content"))


def scalar_text(what: str, value: object) -> str:
    """A text or a number as text; several in a list are one, joined by commas."""
    if isinstance(value, bool):
        raise RowError(f"the {what} is {value}, neither a text nor a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError(f"the {what} is {value}, not a number")
    if isinstance(value, (int, float)):
        return str(int(value)) if value == int(value) else repr(value)
    if _is_list(value):
        if not value:
            raise RowError(f"the {what} is an empty list")
        return ", ".join(scalar_text(what, one) for one in value)
    return text(what, value).strip()


def answer_value(record: Record, name: str) -> Any:
    """The value of the field with the answer; of a text with a box what stands in that."""
    value = find(record, name)
    boxed = answer_of(value) if isinstance(value, str) else None
    if boxed is None and name == SOLUTION and value is not None:
        raise RowError("the solution has no boxed answer")
    return value if boxed is None else boxed


def has_grid(record: Record) -> bool:
    """Whether the solution is the table of a puzzle without a question (ZebraLogic's grid mode)."""
    table = find(record, SOLUTION)
    return isinstance(table, Mapping) and {"header", "rows"} <= set(table)


def grid(record: Record) -> Grid:
    """The table that is the solution."""
    table = find(record, SOLUTION)
    header, rows = table["header"], table["rows"]
    if not _is_list(header) or not _is_list(rows):
        raise RowError("the header and the rows of the solution are no lists")
    try:
        return grid_of(header, rows)
    except ValueError as error:
        raise RowError(str(error)) from error


def tolerance(record: Record) -> Tolerance:
    """How far an answer may be from the given one (OlympiadBench: `error`, which has another
    meaning elsewhere); of several numbers the smallest."""
    if find(record, UNIT) is None and find(record, "final_answer") is None:
        return EXACT
    value = find(record, ERROR)
    texts = str(value).split(",") if isinstance(value, (str, int, float)) else []
    texts = [text.strip() for text in texts if text.strip() not in ("", "nan", "None")]
    try:
        errors = [float(text) for text in texts]
        return Tolerance(absolute=min(errors, default=0.0))
    except ValueError as error:
        raise RowError(f"the {ERROR} is `{value}`, not a number from 0") from error


def unit(record: Record) -> str:
    """The unit that the answer is in, "" for none (OlympiadBench)."""
    value = find(record, UNIT)
    return value.strip() if isinstance(value, str) else ""


def choice_texts(value: object) -> tuple[str, ...]:
    """The choices of a list of texts, or of a mapping from letters to texts."""
    if isinstance(value, Mapping):
        if list(value) != list(LETTERS[: len(value)]):
            keys = ", ".join(map(str, value))
            raise RowError(f"the choices are under {keys}, not under A, B, C …")
        value = list(value.values())
    if not _is_list(value):
        raise RowError(f"the choices are of type {type(value).__name__}, not a list of texts")
    if len(value) > len(LETTERS):
        raise RowError(f"the choices are {len(value)}, more than there are letters")
    return tuple(scalar_text("choices", one) for one in value)


def right_letter(answer: str, choices: Sequence[str]) -> str:
    """The letter of the right choice, which may be given as text, letter or index from 0."""
    if choices.count(answer) == 1:
        return LETTERS[choices.index(answer)]
    if len(answer) == 1 and answer.upper() in LETTERS[: len(choices)]:
        return answer.upper()
    if answer.isdecimal() and int(answer) < len(choices):
        return LETTERS[int(answer)]
    raise RowError(f"the answer `{answer}` is none of the {len(choices)} choices")


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
