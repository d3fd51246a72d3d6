"""How fast traces are checked: 10,000 different traces of about 1 kB, goal 10 s or less.

python benchmarks/checker.py [schema] [--traces 10000]
"""

from __future__ import annotations

import argparse
import random
import time

from nprdsl.schema import Schema, load
from nprdsl.testing import all_mutations

PROSE = "the sum of both parts is 37*4 + 85 < 200, so we carry $x_1$ and go on \\n with <b> 🙂"
WORDS = tuple(PROSE.split())


def trace(schema: Schema, size: int, numbers: random.Random) -> str:
    """The schema's example with its placeholders replaced by prose, about `size` characters."""
    pieces = [p.split(")", 1) for p in schema.skeleton().split("(")]
    texts = len(pieces) - 1
    per_text = max(1, (size - len(schema.skeleton())) // texts)

    def prose() -> str:
        words: list[str] = []
        while sum(map(len, words)) + len(words) < per_text:
            words.append(numbers.choice(WORDS))
        return " ".join(words)

    return pieces[0][0] + "".join(prose() + rest for _, rest in pieces[1:])


def seconds(schema: Schema, texts: list[str]) -> float:
    start = time.perf_counter()
    for text in texts:
        schema.check(text)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("schema", nargs="?", default="npr")
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=1000, help="characters of a trace")
    options = parser.parse_args()
    schema = load(options.schema)
    numbers = random.Random(0)
    legal = [trace(schema, options.size, numbers) for _ in range(options.traces)]
    assert not schema.check(legal[0])
    faults = [m.text for text in legal[:20] for m in all_mutations(schema, text)]
    illegal = [numbers.choice(faults) for _ in range(options.traces)]
    mean = sum(map(len, legal)) / len(legal)
    print(f"{options.schema}: {len(legal)} traces of {mean:.0f} characters")
    print(f"legal    {seconds(schema, legal):6.2f} s")
    print(f"illegal  {seconds(schema, illegal):6.2f} s")


if __name__ == "__main__":
    main()
