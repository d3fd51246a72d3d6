"""What requests whose prompts begin alike compute once: keys and values of the common beginning.

A request that is admitted gets copies of all that is kept of its prompt (see
`nprdsl.runtime.prefix_tree`) and feeds only the rest. Where another one computes what it needs too,
it waits for that. What a request feeds of its prompt is kept from then on. When the weights of the
model change, all of it is forgotten.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from transformers import PreTrainedModel

from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.kv_log import KvPiece
from nprdsl.runtime.local.recurrent_forward import RecurrentForward
from nprdsl.runtime.local.requests import ScheduledRequest
from nprdsl.runtime.prefix_tree import PrefixTree

WORTH: Final = 16  # tokens that are worth a copy, or the round for which a request waits


class SharedPrefixes:
    """Keeps at most `bound` tokens beside the log; 0 keeps none, and nothing is shared."""

    def __init__(self, forward: Forward | RecurrentForward, bound: int) -> None:
        self.tree: PrefixTree[KvPiece] = PrefixTree(bound)
        self.copied = 0  # tokens that were not computed again, so far
        self._forward = forward
        self._weights = 0  # changes that were noticed
        self._seen: Hashable = None

    def enter(self, request: ScheduledRequest[Any]) -> bool:
        """Writes what is kept of the prompt into the request's extent; False while it should wait
        for what another computes."""
        if not self.tree.bound:
            request.shared = len(request.prompt)
            return True
        prompt, known = request.prompt, request.prompt_known
        found = self.tree.match(prompt, known)
        worth = min(WORTH, known)
        if found.coming and found.length + found.coming >= worth:
            return False
        if found.length and found.length >= worth:
            at = request.extent.start
            for piece in found.pieces:
                self._forward.log.write(at, piece)
                at += piece.length
            request.log.skip(found.length)
            self.copied += found.length
        self.tree.claim(prompt, request.number)
        request.shared, request.weights = request.log.filled, self._weights
        return True

    def add(self, request: ScheduledRequest[Any]) -> None:
        """Keeps what the request has fed of its prompt."""
        done = min(request.log.filled, len(request.prompt), self.tree.bound)
        if request.weights == self._weights and done > request.shared:
            start, log = request.extent.start, self._forward.log
            self.tree.keep(request.prompt[:done], lambda i, j: log.read(start + i, j - i))
        request.shared = len(request.prompt) if done == self.tree.bound else done

    def leave(self, request: ScheduledRequest[Any]) -> None:
        """It no longer computes its prompt."""
        if request.shared < len(request.prompt):
            self.tree.let_go(request.prompt, request.number)

    def notice(self) -> None:
        """Forgets all where the weights are not those of the last time."""
        seen = _weights(self._forward.model) if self.tree.bound else None
        if seen != self._seen:
            self._seen = seen
            self.forget()

    def forget(self) -> None:
        """Forgets all; what runs goes on with what it has."""
        self.tree.clear()
        self._weights += 1


def _weights(model: PreTrainedModel) -> Hashable:
    """Equal while the parameters are the same tensors and nothing has written into them.

    Not seen: what is written through `.data` or in inference mode, and adapters switched on and
    off.
    """
    parameters = model.parameters()
    return tuple([(p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters])
