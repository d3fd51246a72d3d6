"""How many tokens a request can ever feed: what admission must reserve.

A `reread` join feeds its branches' tokens once more, and a nested one what it copied; so a token is
fed at most once for every `reread` block around it, and once when it is written.
"""

from __future__ import annotations

from nprdsl.grammar.first_follow import children
from nprdsl.grammar.ir import Fork, Grammar, JoinKind, Node, Ref
from nprdsl.machine.budget import LimitError, Limits


def most_fed(grammar: Grammar, limits: Limits, prompt: int) -> int:
    """Tokens of the prompt, of the trace, and of all copies.

    Raises LimitError where `reread` blocks nest without a limit on depth.
    """
    return prompt + limits.max_tokens * (1 + rereads(grammar, limits.depth))


def rereads(grammar: Grammar, depth: int | None) -> int:
    """The most `reread` blocks that can stand around one token."""
    around = {name: _forks(rule.node) for name, rule in grammar.rules.items()}
    inside = {name: _refs(rule.node) for name, rule in grammar.rules.items()}
    counts = dict.fromkeys(grammar.rules, 0)
    most = len(grammar.rules) if depth is None else depth
    for _ in range((most + 1) * len(grammar.rules)):
        deeper = {
            name: max(
                [counts[rule] for rule in inside[name]]
                + [counts[branch] + again for branch, again in around[name]],
                default=0,
            )
            for name in grammar.rules
        }
        if depth is not None:
            deeper = {name: min(count, depth) for name, count in deeper.items()}
        if deeper == counts:
            return counts[grammar.start]
        counts = deeper
    if depth is not None:
        return counts[grammar.start]
    raise LimitError(
        f"blocks of `{grammar.name}` with a `reread` join can nest without end, so the memory of a "
        "request has no bound; set Limits(depth=…)"
    )


def _forks(node: Node) -> list[tuple[str, int]]:
    """The branch rules of a node's forks, with 1 where the branch is read again."""
    if isinstance(node, Fork):
        return [(node.branch.rule, int(node.block.join is JoinKind.REREAD))]
    return [fork for inner in children(node) for fork in _forks(inner)]


def _refs(node: Node) -> list[str]:
    if isinstance(node, Fork):
        return []
    if isinstance(node, Ref):
        return [node.rule]
    return [name for inner in children(node) for name in _refs(inner)]
