"""How many tokens a request can feed at most: the KV slots that admission reserves for it.

A `reread` join feeds the tokens of its branches once more, and an outer one feeds those copies
again. So a token is fed once when it is written, and at most once for every `reread` block around
it. How many of those can stand around one token follows from the grammar and the limit on depth.
"""

from __future__ import annotations

from functools import lru_cache

from nprdsl.grammar.ir import ForkNode, Grammar, JoinKind, Node, Ref, nodes
from nprdsl.machine.budget import LimitError, Limits


def most_fed(grammar: Grammar, limits: Limits, prompt: int) -> int:
    """Tokens of the prompt, of the trace, and of all copies.

    Raises LimitError where `reread` blocks nest without a limit on depth.
    """
    return prompt + limits.max_tokens * (1 + rereads(grammar, limits.depth))


@lru_cache(maxsize=256)  # of grammars that live; each request asks
def rereads(grammar: Grammar, depth: int | None) -> int:
    """The most `reread` blocks that can stand around one token. Raises LimitError as `most_fed`.

    The greatest sum over all ways from the start rule into other rules, where a way into a branch
    that is read again counts 1. The sums grow, one rule further each time, until none does; where
    blocks nest without end they stop beyond `cap`, which no other grammar reaches.
    """
    uses = {name: _uses(rule.node) for name, rule in grammar.rules.items()}
    cap = len(grammar.rules) if depth is None else depth
    counts: dict[str, int] = {}
    further = dict.fromkeys(grammar.rules, 0)
    while further != counts:
        counts = further
        further = {
            name: min(max([counts[rule] + copies for rule, copies in used], default=0), cap + 1)
            for name, used in uses.items()
        }
    most = counts[grammar.start]
    if depth is None and most > cap:
        raise LimitError(
            f"blocks of `{grammar.name}` with a `reread` join can nest without end, so the memory "
            "of a request has no bound; set Limits(depth=…)"
        )
    return min(most, cap)


def _uses(node: Node) -> list[tuple[str, int]]:
    """The rules that a node leads into, with 1 where a branch is read again, else 0."""
    branches = [inner for inner in nodes(node) if isinstance(inner, ForkNode)]
    uses = [(fork.branch.rule, int(fork.block.join is JoinKind.REREAD)) for fork in branches]
    return uses + [(inner.rule, 0) for inner in nodes(node) if isinstance(inner, Ref)]
