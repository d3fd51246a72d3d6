"""Which field of a row is the prompt, which the answer: by well-known names, or as the caller says.

Rows of the published sets are brought to one form first: ORZ's turns of a conversation
(arXiv:2503.24290), and answers that stand inside another field. Where two fields could be meant, or
none, the source is refused with the names that were found; nothing is guessed. Without a field for
the answer, the box in a `solution` is it (MATH, Minerva).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nprdsl.trainers.data.sources import AUTO, SourceError
from nprdsl.trainers.grading.answers import answer_of

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
CONTEXTS: Final = ("puzzle", "context")  # stands before the question
CHOICES: Final = ("choices", "options")

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
    """The value of a field, also inside another (`reward_model.ground_truth`); None if absent."""
    if name in record:
        return record[name]
    outer, dot, inner = name.partition(".")
    within = record.get(outer)
    return find(within, inner) if dot and isinstance(within, Mapping) else None


def answer(record: Record, name: str) -> Any:
    """The answer in a field: what stands in its box, if it has one."""
    value = find(record, name)
    boxed = answer_of(value) if isinstance(value, str) else None
    if boxed is None and name == SOLUTION and value is not None:
        raise RowError("the solution has no boxed answer")
    return value if boxed is None else boxed


def choose(
    name: str, records: Sequence[Record], known: Sequence[str], given: str, what: str
) -> str:
    """The field that is `what` in the rows of the source `name`. Raises SourceError."""
    if given != AUTO:
        if not any(find(record, given) is not None for record in records):
            raise SourceError(f"`{name}` has no field `{given}`; {_listed(records)}")
        return given
    found = [field for field in known if any(find(record, field) is not None for record in records)]
    if len(found) == 1:
        return found[0]
    option = f"name it with {what}_field"
    if not found and known is ANSWERS and any(SOLUTION in record for record in records):
        return SOLUTION
    if not found:
        raise SourceError(
            f"no field of `{name}` is known as the {what}; {_listed(records)}; {option}"
        )
    several = " and ".join(f"`{field}`" for field in found)
    raise SourceError(f"`{name}` has {several}, each may be the {what}; {option}")


def first(name: str, records: Sequence[Record], known: Sequence[str], given: str = AUTO) -> str:
    """The first of the known fields that some row has, "" if none has one; a field that was named
    must be there. Raises SourceError."""
    if given != AUTO:
        return choose(name, records, known, given, "field")
    return next((n for n in known if any(find(record, n) is not None for record in records)), "")


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
