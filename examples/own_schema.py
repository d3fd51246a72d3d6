"""A language of one's own: topics of a question, a note on each, a summary.

    python examples/own_schema.py --model FOLDER-OR-HUB-NAME [--seed 1] [QUESTION]

Two things help a model that was never trained on the format. A note begins with the whole TOPIC of
its branch, not with a number, so the model knows what to write about; and its text is a SENTENCE, a
regular expression without angle brackets, so that it cannot write what only looks like a tag.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import nprdsl
from nprdsl import Limits
from nprdsl.runtime import LocalEngine
from nprdsl.runtime.sampling import Sampling

SOURCE = r"""
%import .parallel (map, process, reduce)

start:   map{topics} process{topic, note} reduce{summary}
topics:  "<topics>" _NL (topic _NL)~2..3 "</topics>"
topic:   "<topic>" LABEL ". " TOPIC "</topic>"
note:    _NL "<note>" LABEL ". " TOPIC ": " SENTENCE "</note>"
summary: _NL "<summary>" SENTENCE "</summary>"

LABEL: /[1-9]/
TOPIC: /[A-Z][a-z]{2,12}( [a-z]{2,12}){0,3}/
SENTENCE: /[A-Z][a-z]*[ ,'a-zA-Z0-9-]{20,120}\./
_NL: "\n"
"""
QUESTION = "What should I think about before I adopt a dog?"
LIMITS = Limits(max_tokens=260, rule_tokens={"note": 60, "summary": 60})


def own_schema() -> nprdsl.Schema:
    """The schema of SOURCE; a program would keep it in a file of its own."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "notes.lark"
        file.write_text(SOURCE, encoding="utf-8")
        return nprdsl.load(file)


def main() -> None:
    parser = argparse.ArgumentParser(description="Notes on the topics of a question.")
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--model", required=True, help="a folder or a hub name")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    engine = LocalEngine.from_pretrained(given.model)
    result = engine.generate(
        own_schema(),
        given.question,
        sampling=Sampling(temperature=0.7, top_p=0.9, seed=given.seed),
        limits=LIMITS,
        chat=engine.chats,
        instructions=True,
    )
    print(result.text)
    usage = result.usage
    print(f"{usage.total} tokens, critical path {usage.critical_path}, {usage.time_s:.1f} s")


if __name__ == "__main__":
    main()
