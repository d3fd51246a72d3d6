"""Random runs as their events tell them: branches of any nesting, in any order of the loop."""

from __future__ import annotations

from hypothesis import strategies as st

from nprdsl.structure.events import (
    BranchEndEvent,
    BranchReason,
    EndEvent,
    EndReason,
    Event,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)


@st.composite
def runs(draw: st.DrawFn) -> list[Event]:
    """Events of any nesting: branches write, fork, end and join in any order of the loop."""
    events: list[Event] = []
    fresh = 1
    blocks: dict[int, int] = {}
    live: dict[int, tuple[int, ...]] = {0: ()}  # path by branch
    waiting: dict[int, list[int]] = {}  # a parent's children that run
    parent_of: dict[int, int] = {}
    for _ in range(draw(st.integers(0, 40))):
        branch = draw(st.sampled_from(sorted(live)))
        path = live[branch]
        step = draw(st.sampled_from(["write", "write", "write", "fork", "end"]))
        if step == "write":
            text = draw(st.sampled_from(["", "a", "é", "<step>", "\n"]))
            events.append(TokenEvent(branch, path, (1,), text, False, rule="step"))
        elif step == "fork" and fresh < 12:
            children = tuple(range(fresh, fresh + draw(st.integers(1, 3))))
            fresh += len(children)
            block = blocks.get(branch, 0)
            blocks[branch] = block + 1
            labels = tuple(str(child) for child in children)
            events.append(ForkEvent(branch, children, labels, "step", path, block))
            del live[branch]
            waiting[branch] = list(children)
            for at, child in enumerate(children):
                live[child], parent_of[child] = (*path, block, at), branch
        elif step == "end" and branch in parent_of:
            _end(events, branch, live, waiting, parent_of)
    while any(branch in parent_of for branch in live):
        _end(events, max(b for b in live if b in parent_of), live, waiting, parent_of)
    return [*events, EndEvent(EndReason.COMPLETED)]


def _end(
    events: list[Event],
    branch: int,
    live: dict[int, tuple[int, ...]],
    waiting: dict[int, list[int]],
    parent_of: dict[int, int],
) -> None:
    path = live.pop(branch)
    events.append(BranchEndEvent(branch, BranchReason.COMPLETED, path))
    parent = parent_of.pop(branch)
    waiting[parent].remove(branch)
    if not waiting[parent]:
        live[parent] = path[:-2]
        events.append(JoinEvent(parent, (), path[:-2]))
