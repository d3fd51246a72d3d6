"""All requests for traces in one scheduler process, and the steps that SGLang's loop takes them by.

A loop of SGLang asks here several times: before it looks for work (`admit`: requests are let in;
`tidy`: rows that do not decode leave the batches), for prompts to compute (`extend`: a batch of
branches with several tokens to feed goes first), when tokens are drawn (`drawing`), and when a
forward is done (`complete`: machines move on, forks and joins happen, clients are told). One token
a branch is an ordinary row of SGLang's decode batch.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from nprdsl.machine.actions import ROOT
from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.sglang.plugin.branch_queues import Branch, Merged, Released, Started
from nprdsl.runtime.sglang.plugin.kv_reserve import Reserve
from nprdsl.runtime.sglang.plugin.kv_slots import SlotPools
from nprdsl.runtime.sglang.plugin.rows import MARK, BranchReq, TraceReq
from nprdsl.runtime.sglang.plugin.trace_request import Conductor, Stage

Drawn = tuple[int, float]


class TraceScheduler:
    """`make_batch` builds SGLang's batch of requests to extend; `queue` puts a client's request
    into SGLang's own queue; `send` sends what was written into clients' requests."""

    def __init__(
        self,
        pools: SlotPools,
        *,
        most_rows: int,
        make_batch: Callable[[list[BranchReq]], Any],
        queue: Callable[[TraceReq], None],
        send: Callable[[list[TraceReq]], None],
    ) -> None:
        self.pools = pools
        self.reserve = Reserve(pools)
        self.waiting: deque[Conductor] = deque()
        self.drawn: dict[str, Drawn] = {}  # by the rid of a row, since the last forward
        self.placed: dict[str, list[int]] = {}  # positions of the tokens fed, where they are wanted
        self._of: dict[str, Conductor] = {}  # by the rid of the client's request
        self._most_rows = most_rows
        self._make_batch = make_batch
        self._queue = queue
        self._send = send
        self._decode_next = False
        self._left = False  # rows of requests that are over may still be in SGLang's batches
        self._stashed: dict[BranchReq, int] = {}  # the token that a decode step would feed

    # -- coming and going --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether there is anything to do at all."""
        return bool(self._of) or self._left

    @property
    def conductors(self) -> list[Conductor]:
        """All requests that are not over."""
        return [*self.reserve.admitted, *self.waiting]

    @property
    def hidden(self) -> int:
        """Slots that SGLang's admission may not count on: what is promised, and what the next
        request waits for, lest plain ones go before it forever."""
        return self.reserve.hidden + (self.waiting[0].slots if self.waiting else 0)

    @property
    def holds_kv(self) -> bool:
        """Some request has something in the KV cache; one whose prompt only waits has nothing."""
        return any(c.stage is Stage.RUNNING or c.trace.kv.holds_kv for c in self.reserve.admitted)

    @property
    def owned(self) -> int:
        """Slots that branches own, those shared with the tree of prefixes not counted."""
        running = (c for c in self.reserve.admitted if c.stage is Stage.RUNNING)
        return sum(h.owned for c in running for h in c.holdings.values())

    def conductor(self, req: Any) -> Conductor | None:
        """The request that a row of SGLang's belongs to; None for a plain one."""
        if isinstance(req, BranchReq):
            return self._of.get(req.trace.rid)
        return self._of.get(req.rid) if isinstance(req, TraceReq) else None

    def submit(self, conductor: Conductor) -> None:
        """Takes a request in; it starts when there is memory for it, first come first served."""
        self._of[conductor.trace.rid] = conductor
        self.waiting.append(conductor)

    def matching(self, rid: str, *, everything: bool) -> list[Conductor]:
        """Requests that an abort of `rid` means, as SGLang reads it: all that begin so."""
        return [
            c
            for c in self.conductors
            if everything or c.trace.rid.startswith(rid) or rid.startswith(c.trace.rid + MARK)
        ]

    def abort(self, conductor: Conductor) -> None:
        """Ends a request with all its branches; all that it held is free at once."""
        conductor.stop(error=conductor.trace.failure)
        self._end([conductor])

    def restart_all(self) -> None:
        """Frees the KV of requests that run; each is computed again from its tokens when it is let
        in. Those whose prompt is being computed are left to SGLang."""
        running = [c for c in self.reserve.admitted if c.stage is Stage.RUNNING]
        for conductor in reversed(running):
            self._free(conductor)
            self.reserve.admitted.remove(conductor)
            conductor.restart()
            self.waiting.appendleft(conductor)

    # -- before work is looked for -----------------------------------------------------------------

    def admit(self, besides: int) -> None:
        """Lets requests in while there is memory; `besides` slots are needed by plain prompts."""
        for conductor in [c for c in self.reserve.admitted if c.stage is Stage.PROMPT]:
            if conductor.trace.finished():  # SGLang has ended it before its prompt was computed
                self.abort(conductor)
        while self.waiting and self.reserve.fits(self.waiting[0], besides):
            self._let_in(self.waiting.popleft())

    def tidy(self, batches: Iterable[Any]) -> None:
        """Takes rows that do not decode out of SGLang's batches."""
        self._left = False
        for batch in batches:
            if batch is None:
                continue
            gone = [req for req in batch.reqs if self._is_ours(req) and not self._decodes(req)]
            if gone:
                batch.filter_batch(reqs_to_exclude=gone)
                batch.batch_is_full = False

    def _let_in(self, conductor: Conductor) -> None:
        self.reserve.admitted.append(conductor)
        with self.boundary(conductor):
            conductor.begin()
            if conductor.finish is None:
                conductor.enter()
                self._queue(conductor.trace)
        if conductor.finish is not None and conductor.stage is not Stage.OVER:
            self._end([conductor])

    def _is_ours(self, req: Any) -> bool:
        if isinstance(req, TraceReq):
            conductor = self._of.get(req.rid)
            return conductor is None or conductor.stage is not Stage.PROMPT
        return isinstance(req, BranchReq)

    def _decodes(self, req: Any) -> bool:
        """Whether a decode step would feed exactly what the row has to feed."""
        conductor = self.conductor(req)
        if conductor is None or not isinstance(req, BranchReq) or not req.kv.holds_kv:
            return False
        holding = conductor.holdings.get(req.name)
        if holding is None or holding.req is not req:
            return False
        branch = conductor.forest.branches[req.name]
        waiting = branch.waiting
        return (
            len(waiting) == 1 and self._stashed.get(req) == waiting[0] and conductor.may_run(branch)
        )

    # -- prompts and branches with several tokens --------------------------------------------------

    def extend(self, running: Any) -> Any:
        """A batch of branches with several tokens to feed, or None. Decode steps of others run in
        between."""
        if self._decode_next and running.reqs:
            self._decode_next = False
            return None
        decoding = set(running.reqs)
        room, chosen = self._most_rows, []
        for conductor in self.reserve.admitted:
            if conductor.stage is not Stage.RUNNING:
                continue
            for branch in conductor.in_order():
                if not room:
                    break
                req = self._row(conductor, branch, decoding)
                if req is None:
                    continue
                tokens = array("q", islice(branch.waiting, room))
                room -= len(tokens)
                req.feed_next(tokens)
                chosen.append(req)
        if not chosen:
            return None
        self._decode_next = True
        return self._make_batch(chosen)

    def _row(self, conductor: Conductor, branch: Branch, decoding: set[Any]) -> BranchReq | None:
        """The row of a branch that has to extend; None if it has not, or no row is free."""
        if not conductor.may_run(branch):
            return None
        holding = conductor.holdings[branch.name]
        if holding.req is not None:
            return None if holding.req in decoding else holding.req
        self.pools.activate(conductor.trace, branch.name, holding)
        return holding.req

    def can_move(self) -> bool:
        """Whether some branch has a row to extend, or a free one to take."""
        free = self.pools.free_rows > 0
        return any(
            free or conductor.holdings[branch.name].req is not None
            for conductor in self.reserve.admitted
            if conductor.stage is Stage.RUNNING
            for branch in conductor.forest.alive()
            if conductor.may_run(branch)
        )

    # -- a forward ---------------------------------------------------------------------------------

    def drawing(self, rids: list[str], counts: list[int]) -> list[tuple[int, Conductor, int]]:
        """The rows of a forward that draw a token: index, request, branch. `counts` are the tokens
        that each row feeds."""
        found = []
        for index, (rid, count) in enumerate(zip(rids, counts, strict=True)):
            trunk = self._of.get(rid)
            if trunk is not None:
                if self._is_last_chunk(trunk) and trunk.draws(
                    trunk.forest.root, len(trunk.trace.output_ids)
                ):
                    found.append((index, trunk, ROOT))
                continue
            root, mark, name = rid.rpartition(MARK)
            conductor = self._of.get(root) if mark else None
            if conductor is None or not name.isdecimal():
                continue
            branch = conductor.forest.branches.get(int(name))
            if branch is not None and conductor.draws(branch, count):
                found.append((index, conductor, int(name)))
        return found

    def is_row(self, rid: str) -> bool:
        """Whether the row of that name belongs to a request for a trace."""
        return rid in self._of or rid.rpartition(MARK)[0] in self._of

    def _is_last_chunk(self, conductor: Conductor) -> bool:
        trace = conductor.trace
        return bool(trace.extend_end == len(trace.full_untruncated_fill_ids))

    def complete(self, batch: Any) -> None:
        """A forward of this batch is done."""
        touched: dict[Conductor, list[tuple[int, str]]] = {}
        for index, req in enumerate(batch.reqs):
            conductor = self.conductor(req)
            if conductor is None or conductor.stage is Stage.OVER:
                continue
            rows = touched.setdefault(conductor, [])
            if isinstance(req, BranchReq):
                rows.append((req.name, req.rid))
                with self.boundary(conductor):
                    self._fed(conductor, req)
            elif not req.finished() and self._is_last_chunk(conductor):
                rows.append((ROOT, req.rid))
                with self.boundary(conductor):
                    batch.reqs[index] = self._adopt(conductor)
        for conductor, rows in touched.items():
            conductor.forwards += 1
            if rows:  # none while a long prompt is computed in pieces
                with self.boundary(conductor):
                    self._advance(conductor, rows)
        self._tell(touched)
        self.drawn.clear()
        self.placed.clear()

    def _fed(self, conductor: Conductor, req: BranchReq) -> None:
        """What the row had to feed is in the KV cache."""
        branch = conductor.forest.branches[req.name]
        count = int(req.kv.kv_committed_len) - len(req.origin_input_ids)
        req.has_fed(array("q", islice(branch.waiting, count)))
        branch.fed(count)
        if req.rid in self.placed:
            conductor.placed(req.name, self.placed[req.rid])

    def _adopt(self, conductor: Conductor) -> BranchReq:
        """The trunk's row goes on where the client's request leaves the batch."""
        trace, root = conductor.trace, conductor.forest.root
        del trace.output_ids[len(root.waiting) :]  # SGLang's own sample
        holding, conductor.lock = self.pools.adopt(trace)
        conductor.holdings[ROOT] = holding
        if trace.rid in self.placed:
            first, behind = conductor.forest.prompt, len(root.waiting)
            cached = range(first, first + behind - len(self.placed[trace.rid]))
            conductor.placed(ROOT, [*cached, *self.placed[trace.rid]][-behind:] if behind else [])
        root.fed(len(root.waiting))
        conductor.leave()
        assert holding.req is not None
        return holding.req

    def _advance(self, conductor: Conductor, rows: list[tuple[int, str]]) -> None:
        """Tells the machine what was drawn, in the order of the trace, and does what follows."""
        path = conductor.machine.path
        for name, rid in sorted(rows, key=lambda row: path(row[0])):
            drawn = self.drawn.get(rid)
            holding = conductor.holdings.get(name)
            if holding is None or holding.req is None:
                continue
            self._stashed.pop(holding.req, None)
            if drawn is not None:
                self._stashed[holding.req] = drawn[0]
                conductor.advance(name, *drawn)
        self._settle(conductor)
        if conductor.finish is None and not any(b.waiting for b in conductor.forest.alive()):
            raise RuntimeError("there is nothing to feed and nothing to draw")

    def _settle(self, conductor: Conductor) -> None:
        """Forks and joins that wait for nothing; branches that have nothing to feed give their rows
        back."""
        if conductor.finish is not None:
            return
        holdings, pools = conductor.holdings, self.pools
        effects = conductor.forest.settle()
        for name in [n for n, h in holdings.items() if h.req is not None]:
            branch = conductor.forest.branches.get(name)
            if branch is None or not branch.waiting:
                self._park(conductor, name)
        for effect in effects:
            match effect:
                case Started(parent, children):
                    self._park(conductor, parent.name)  # it may have more to feed at once
                    made = pools.start(holdings[parent.name], len(children))
                    holdings.update(zip((c.name for c in children), made, strict=True))
                case Merged(parent, children):
                    parts = [holdings.pop(child.name) for child in children]
                    pools.merge(holdings[parent.name], parts)
                case Released(parent, branches):
                    conductor.reads_again(parent.name, branches)
                    for branch in branches:
                        if branch.name in holdings:
                            pools.release(holdings.pop(branch.name))

    def _park(self, conductor: Conductor, name: int) -> None:
        holding = conductor.holdings[name]
        if holding.req is not None:
            self._stashed.pop(holding.req, None)
        self.pools.park(holding)

    # -- the end -----------------------------------------------------------------------------------

    def _tell(self, touched: Iterable[Conductor]) -> None:
        """Sends what is new: chunks to clients that stream, results to all."""
        ended = [c for c in touched if c.finish is not None]
        running = (c for c in touched if c.finish is None and c.stage is Stage.RUNNING)
        streaming = [c.trace for c in running if c.trace.stream and c.report()]
        if streaming:
            self._send(streaming)
        if ended:
            self._end(ended)

    def _end(self, ended: list[Conductor]) -> None:
        """Frees all that these requests hold and sends their results."""
        self._left = True
        for conductor in ended:
            if conductor in self.reserve.admitted:
                self._free(conductor)
                self.reserve.admitted.remove(conductor)
            else:
                self.waiting.remove(conductor)
            del self._of[conductor.trace.rid]
            conductor.end()
        sending = [c.trace for c in ended if not c.trace.finished_output]
        if sending:
            self._send(sending)

    def _free(self, conductor: Conductor) -> None:
        for holding in conductor.holdings.values():
            if holding.req is not None:
                self._stashed.pop(holding.req, None)
            self.pools.release(holding)
        conductor.holdings.clear()
        if conductor.stage is Stage.RUNNING:
            self.pools.unlock(conductor.trace, conductor.lock)
            conductor.lock = None
        elif conductor.trace.kv.holds_kv:
            self.pools.discard(conductor.trace)

    def boundary(self, conductor: Conductor) -> ErrorBoundary:
        """An error ends one request, not the server."""
        return ErrorBoundary(lambda error: conductor.stop(error=f"{type(error).__name__}: {error}"))
