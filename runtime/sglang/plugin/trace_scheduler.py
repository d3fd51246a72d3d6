"""All requests for traces in one scheduler process, driven by SGLang's scheduling loop.

Each iteration of that loop comes here several times: `admit` lets waiting requests in and `tidy`
takes rows that will not decode out of the batches, before SGLang looks for work; `extend` builds a
batch of branches that have several tokens to feed; `drawing_rows` says which rows of a forward pass
draw a token; `complete` moves the machines on after it, forks and joins, and sends output. A branch
with a single token to feed is an ordinary row of SGLang's decode batch.

What a request may feed is promised to it before (`KVReservations`). Where memory ends, the youngest
gives all that it has back and waits again; later it is computed again from its own tokens.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from nprdsl.machine.actions import ROOT
from nprdsl.machine.transcript import Alternatives
from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.sglang.plugin.branch_queues import KVChange, KVChangeKind, QueuedBranch
from nprdsl.runtime.sglang.plugin.kv_pools import BranchKV, KVPools
from nprdsl.runtime.sglang.plugin.kv_reservations import KVReservations
from nprdsl.runtime.sglang.plugin.req_types import BranchReq, TraceReq
from nprdsl.runtime.sglang.plugin.trace_run import RunStage, TraceRun
from nprdsl.runtime.sglang.plugin.turns import RequestKind, Turns
from nprdsl.runtime.sglang.protocol import BRANCH_MARK
from nprdsl.structure.events import EndReason

DrawnToken = tuple[int, int, float, Alternatives]  # branch, token, log-probability
DrawingRow = tuple[int, TraceRun, int]  # index in the batch, request, branch


class TraceScheduler:
    """`max_rows`: the most tokens of one extend. `make_batch` builds SGLang's batch for an extend;
    `queue` puts a client's request into SGLang's own queue, `unqueue` takes it out where it is
    there; `send` sends the output that is written in clients' requests."""

    def __init__(
        self,
        pools: KVPools,
        *,
        max_rows: int,
        turns: Turns,
        make_batch: Callable[[list[BranchReq]], Any],
        queue: Callable[[TraceReq], None],
        unqueue: Callable[[TraceReq], None],
        send: Callable[[list[TraceReq]], None],
    ) -> None:
        self.pools = pools
        self.reservations: KVReservations[TraceRun] = KVReservations(pools)
        self.waiting: list[TraceRun] = []  # by number
        # Of the last forward pass, by the rid of a row:
        self.drawn: dict[str, list[DrawnToken]] = {}
        self.fed_positions: dict[str, list[int]] = {}  # where a request asks for them
        self._runs: dict[str, TraceRun] = {}  # by the rid of the client's request
        self._submitted = 0
        self._max_rows = max_rows
        self.turns = turns
        self._spare_rows = 0  # that are kept for a plain request whose turn it is
        self._make_batch = make_batch
        self._queue = queue
        self._unqueue = unqueue
        self._send = send
        self._decode_next = False  # an extend was just done
        self._may_have_stale_rows = False  # rows of requests that ended, in SGLang's batches
        self._decode_token: dict[BranchReq, int] = {}  # what a decode step of a row would feed

    # -- requests come and go ----------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether there is anything to do at all."""
        return bool(self._runs) or self._may_have_stale_rows

    @property
    def hidden(self) -> int:
        """Slots that SGLang's admission must not count on: those promised, and those that the next
        request waits for while it is its turn, lest plain requests overtake it for ever."""
        is_next = self.waiting and self.turns.due is RequestKind.TRACE
        next_one = self.reservations.at_start(self.waiting[0]) if is_next else 0
        return self.reservations.hidden + next_one

    @property
    def holds_kv(self) -> bool:
        """Whether some request has something in the KV cache."""
        admitted = self.reservations.admitted
        return any(r.stage is RunStage.RUNNING or r.trace.kv.holds_kv for r in admitted)

    @property
    def owned(self) -> int:
        """Slots that branches own, without those that they share with SGLang's tree."""
        running = (r for r in self.reservations.admitted if r.stage is RunStage.RUNNING)
        return sum(branch.owned for run in running for branch in run.kv.values())

    def run_of(self, req: Any) -> TraceRun | None:
        """The request that a row of SGLang's belongs to; None for a plain one."""
        if isinstance(req, BranchReq):
            return self._runs.get(req.trace.rid)
        return self._runs.get(req.rid) if isinstance(req, TraceReq) else None

    def is_row(self, rid: str) -> bool:
        """Whether the row of that rid belongs to a request for a trace."""
        return rid in self._runs or rid.rpartition(BRANCH_MARK)[0] in self._runs

    def submit(self, run: TraceRun) -> None:
        """Takes a request in; it starts when there is memory for it, first come first served."""
        self._submitted += 1
        run.number = self._submitted
        self._runs[run.trace.rid] = run
        self.waiting.append(run)

    def matching(self, rid: str, *, everything: bool) -> list[TraceRun]:
        """The requests that an abort of `rid` ends: that of the name, or with a row of it."""
        return [
            run
            for run in (*self.reservations.admitted, *self.waiting)
            if everything or run.trace.rid == rid or rid.startswith(run.trace.rid + BRANCH_MARK)
        ]

    def abort(self, run: TraceRun) -> None:
        """Ends a request with all its branches; all that it held is free at once."""
        run.stop(error=run.trace.failure)
        self._unqueue(run.trace)
        self._end([run])

    def restart_all(self) -> None:
        """Frees the KV of running requests, which are computed again from their tokens once they
        are let in again. SGLang restarts those whose prompt it is computing."""
        for run in [r for r in self.reservations.admitted if r.stage is RunStage.RUNNING]:
            self._give_back(run)

    # -- before SGLang looks for work --------------------------------------------------------------

    def admit(self, plain: int, plain_waiting: Sequence[int], retract: Callable[[], bool]) -> None:
        """Lets requests grow, and others in while it is their turn and there is memory.

        Plain prompts that are being computed need `plain` slots more, those that wait for their
        turn `plain_waiting` each; `retract` frees what one plain request has, if it can.
        """
        for run in [r for r in self.reservations.admitted if r.stage is RunStage.PROMPT]:
            if run.trace.finished():  # SGLang has ended it before its prompt was computed
                self.abort(run)
        grown = self.reservations.grow(plain, self._give_back, retract)
        self.turns.takes(RequestKind.TRACE, grown)
        counts = {RequestKind.TRACE: len(self.waiting), RequestKind.PLAIN: len(plain_waiting)}
        self.turns.wait(counts)
        while self.waiting and self.turns.due is RequestKind.TRACE:
            if not self.reservations.fits(self.reservations.at_start(self.waiting[0]), plain):
                break
            run = self.waiting.pop(0)
            self.turns.let_in(RequestKind.TRACE, self.reservations.let_in(run))
            self._let_in(run)
        is_plains_turn = bool(plain_waiting) and self.turns.due is RequestKind.PLAIN
        fits = is_plains_turn and self.reservations.fits(plain_waiting[0], plain)
        self._spare_rows = 1 if fits else 0

    def _let_in(self, run: TraceRun) -> None:
        with self.boundary(run):
            run.begin()
            if run.finish is None:
                run.enter_prompt()
                self._queue(run.trace)
        if run.finish is not None and run.stage is not RunStage.OVER:
            self._end([run])

    def _give_back(self, run: TraceRun) -> None:
        """Its slots are needed: it waits again at its old place. What it did not use is not charged
        to traces."""
        self.turns.takes(RequestKind.TRACE, run.held_slots - run.promised)
        self._unqueue(run.trace)
        self._free(run)
        self.reservations.admitted.remove(run)
        run.restart()
        insort(self.waiting, run, key=lambda waiting: waiting.number)

    def tidy(self, batches: Iterable[Any]) -> None:
        """Takes rows that will not decode out of SGLang's batches."""
        self._may_have_stale_rows = False
        for batch in batches:
            if batch is None:
                continue
            gone = [req for req in batch.reqs if self._is_ours(req) and not self._decodes(req)]
            if gone:
                batch.filter_batch(reqs_to_exclude=gone)
                batch.batch_is_full = False

    def _is_ours(self, req: Any) -> bool:
        if isinstance(req, TraceReq):
            run = self._runs.get(req.rid)
            return run is None or run.stage is not RunStage.PROMPT
        return isinstance(req, BranchReq)

    def _decodes(self, req: Any) -> bool:
        """Whether a decode step would feed exactly what the row has to feed."""
        run = self.run_of(req)
        if run is None or not isinstance(req, BranchReq) or not req.kv.holds_kv:
            return False
        kv = run.kv.get(req.branch)
        if kv is None or kv.req is not req:
            return False
        branch = run.queues.branches[req.branch]
        if len(branch.waiting) != 1 or self._decode_token.get(req) != branch.waiting[0]:
            return False
        return run.may_run(branch)

    # -- branches with several tokens to feed ------------------------------------------------------

    def extend(self, running: Any) -> Any:
        """A batch of branches with several tokens to feed, or None; decode steps of the batch
        `running` alternate with it."""
        if self._decode_next and running.reqs:
            self._decode_next = False
            return None
        decoding = set(running.reqs)
        left, chosen = self._max_rows, []
        for run, branch, kv in self._runnable():
            if not left:
                break
            req = kv.req
            if req is None and self.pools.free_rows > self._spare_rows:
                req = self.pools.take_row(run.trace, branch.number, kv)
            if req is None or req in decoding:
                continue
            tokens = array("q", islice(branch.waiting, left))
            left -= len(tokens)
            req.feed_next(tokens)
            chosen.append(req)
        if not chosen:
            return None
        self._decode_next = True
        return self._make_batch(chosen)

    def can_move(self) -> bool:
        """Whether some branch has a row to extend, or a free one to take."""
        free = self.pools.free_rows > self._spare_rows
        return any(free or kv.req is not None for _, _, kv in self._runnable())

    def _runnable(self) -> Iterator[tuple[TraceRun, QueuedBranch, BranchKV]]:
        """The branches that have tokens to feed, in the order of requests and traces."""
        for run in self.reservations.admitted:
            if run.stage is RunStage.RUNNING:
                for branch in run.in_order():
                    if run.may_run(branch):
                        yield run, branch, run.kv[branch.number]

    # -- a forward pass ----------------------------------------------------------------------------

    def drawing_rows(self, rids: list[str], counts: list[int]) -> list[DrawingRow]:
        """Who draws a token in a forward pass, and behind which row; `counts` are the tokens that
        each row feeds. Several branches that begin behind one row draw from its logits."""
        rows: list[DrawingRow] = []
        for index, (rid, count) in enumerate(zip(rids, counts, strict=True)):
            run, branch = self._runs.get(rid), None
            if run is not None:  # a prompt, with what is forced behind it
                count = len(run.trace.output_ids)
                branch = run.queues.root if self._is_last_chunk(run) else None
            else:
                root, mark, number = rid.rpartition(BRANCH_MARK)
                run = self._runs.get(root) if mark else None
                if run is not None and number.isdecimal():
                    branch = run.queues.branches.get(int(number))
            if run is not None and branch is not None:
                rows += [(index, run, number) for number in run.drawing(branch, count)]
        return rows

    def _is_last_chunk(self, run: TraceRun) -> bool:
        return bool(run.trace.extend_end == len(run.trace.full_untruncated_fill_ids))

    def complete(self, batch: Any) -> None:
        """Takes in what a forward pass of this batch fed and drew."""
        touched: dict[TraceRun, list[tuple[int, str]]] = {}  # branches with the rids of their rows
        for index, req in enumerate(batch.reqs):
            run = self.run_of(req)
            if run is None or run.stage is RunStage.OVER:
                continue
            rows = touched.setdefault(run, [])
            if isinstance(req, BranchReq):
                rows.append((req.branch, req.rid))
                with self.boundary(run):
                    self._fed(run, req)
            elif not req.finished() and self._is_last_chunk(run):
                rows.append((ROOT, req.rid))
                with self.boundary(run):
                    batch.reqs[index] = self._adopt(run)
        for run, rows in touched.items():
            run.forwards += 1
            if rows:  # none while a long prompt is computed in chunks
                with self.boundary(run):
                    self._advance(run, rows)
        self._send_output(touched)
        self.drawn.clear()
        self.fed_positions.clear()

    def _fed(self, run: TraceRun, req: BranchReq) -> None:
        """What the row had to feed is in the KV cache."""
        branch = run.queues.branches[req.branch]
        count = int(req.kv.kv_committed_len) - len(req.origin_input_ids)
        req.has_fed(array("q", islice(branch.waiting, count)))
        branch.fed(count)
        if req.rid in self.fed_positions:
            run.fed_at(req.branch, self.fed_positions[req.rid])

    def _adopt(self, run: TraceRun) -> BranchReq:
        """The prompt is computed: the root branch takes over the row of the client's request."""
        trace, root = run.trace, run.queues.root
        forced = len(root.waiting)
        del trace.output_ids[forced:]  # what SGLang sampled itself
        run.kv[ROOT], run.lock = self.pools.adopt(trace)
        if trace.rid in self.fed_positions:
            fed = self.fed_positions[trace.rid]
            prompt = run.queues.prompt
            cached = range(prompt, prompt + forced - len(fed))  # found in the prefix cache
            run.fed_at(ROOT, [*cached, *fed][-forced:] if forced else [])
        root.fed(forced)
        run.leave_prompt()
        req = run.kv[ROOT].req
        assert req is not None
        return req

    def _advance(self, run: TraceRun, rows: list[tuple[int, str]]) -> None:
        """Tells the machine what was drawn, in the order of the trace, and does what follows."""
        drawn: list[DrawnToken] = []
        for branch, rid in rows:
            kv = run.kv.get(branch)
            if kv is None or kv.req is None:
                continue
            self._decode_token.pop(kv.req, None)
            for draw in self.drawn.get(rid, ()):
                drawn.append(draw)
                if draw[0] == branch:
                    self._decode_token[kv.req] = draw[1]
        path = run.machine.path
        for draw in sorted(drawn, key=lambda draw: path(draw[0])):
            run.advance(*draw)
        if run.finish is not None:
            return
        self._settle(run)
        if not any(branch.waiting for branch in run.queues.branches.values()):
            raise RuntimeError("there is nothing to feed and nothing to draw")

    def _settle(self, run: TraceRun) -> None:
        """Does forks and joins that wait for nothing; branches that have nothing to feed give their
        rows back."""
        changes = run.queues.settle()
        for number in [n for n, kv in run.kv.items() if kv.req is not None]:
            branch = run.queues.branches.get(number)
            if branch is None or not branch.waiting:
                self._give_row_back(run, number)
        for change in changes:
            self._change_kv(run, change)

    def _change_kv(self, run: TraceRun, change: KVChange) -> None:
        parent, children = change.parent.number, [child.number for child in change.children]
        match change.kind:
            case KVChangeKind.SHARE:
                self._give_row_back(run, parent)  # it may have more to feed at once
                forked = self.pools.fork(run.kv[parent], len(children))
                run.kv.update(zip(children, forked, strict=True))
            case KVChangeKind.MERGE:
                self.pools.merge(run.kv[parent], [run.kv.pop(child) for child in children])
            case KVChangeKind.RELEASE:
                run.rereads(parent, change.children)
                for child in children:
                    if child in run.kv:
                        self.pools.release(run.kv.pop(child))

    def _give_row_back(self, run: TraceRun, branch: int) -> None:
        kv = run.kv[branch]
        if kv.req is not None:
            self._decode_token.pop(kv.req, None)
        self.pools.give_row_back(kv)

    # -- output and end ----------------------------------------------------------------------------

    def _send_output(self, touched: Iterable[TraceRun]) -> None:
        """Sends chunks to clients that stream, and results of requests that have ended."""
        ended = [run for run in touched if run.finish is not None]
        running = (r for r in touched if r.finish is None and r.stage is RunStage.RUNNING)
        streaming = [run.trace for run in running if run.trace.stream and run.report()]
        if streaming:
            self._send(streaming)
        if ended:
            self._end(ended)

    def _end(self, ended: list[TraceRun]) -> None:
        """Frees all that these requests hold and sends their results."""
        self._may_have_stale_rows = True
        for run in ended:
            if run in self.reservations.admitted:
                if run.finish in (EndReason.COMPLETED, EndReason.BUDGET):
                    self.reservations.ended(run)
                self._free(run)
                self.reservations.admitted.remove(run)
            else:
                self.waiting.remove(run)
            del self._runs[run.trace.rid]
            run.end()
        sending = [run.trace for run in ended if not run.trace.finished_output]
        if sending:
            self._send(sending)

    def _free(self, run: TraceRun) -> None:
        for kv in run.kv.values():
            if kv.req is not None:
                self._decode_token.pop(kv.req, None)
            self.pools.release(kv)
        run.kv.clear()
        if run.stage is RunStage.RUNNING:
            self.pools.unlock(run.trace, run.lock)
            run.lock = None
        elif run.trace.kv.holds_kv:
            self.pools.discard(run.trace)

    def boundary(self, run: TraceRun) -> ErrorBoundary:
        """An error in the block ends this request, not the server."""
        return ErrorBoundary(lambda error: run.stop(error=f"{type(error).__name__}: {error}"))
