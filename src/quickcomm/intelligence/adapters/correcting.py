"""Understands the corrected text of an utterance, as a step of that operation."""

from collections import OrderedDict
from typing import Final

import msgspec

from quickcomm.contracts.correcting import ReadCorrection, UnderstandCorrection, Understood, first_revision
from quickcomm.contracts.erasing import Scope
from quickcomm.contracts.insights import InsightsFound
from quickcomm.intelligence.adapters.sql_results import SqlResults
from quickcomm.intelligence.ports import Heard, Owed
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.understanding import CONTEXT_UTTERANCES, Understanding
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.messaging.rpc import Answer, NotOwnerError, Rpc
from quickcomm.kernel.saga import Transaction, Transactional
from quickcomm.kernel.storage import Database

READY: Final = 64
"""Corrections that are understood, and wait for their transaction."""


class Corrections:
    """The words come from the dashboard: neither the operation nor its executor has them."""

    def __init__(
        self, understanding: Understanding, results: SqlResults, ownership: Ownership, clock: Clock, rpc: Rpc
    ) -> None:
        self._understanding = understanding
        self._results = results
        self._ownership = ownership
        self._clock = clock
        self._rpc = rpc
        self._ready: OrderedDict[str, tuple[InsightsFound, Owed | None]] = OrderedDict()

    def answer(self, database: Database) -> Answer:
        return Transactional(UnderstandCorrection, database, self._clock, self._publish, self._understand).answer

    def erase(self, scope: Scope) -> None:
        """Forget what is erased; the step is done again, and finds nothing."""
        for key, (found, _) in list(self._ready.items()):
            if scope.has(found.site, found.utterance_id):
                del self._ready[key]

    async def _understand(self, request: UnderstandCorrection) -> None:
        """Find the insights; nothing is published yet. Raises `NotOwnerError` where the other side answers."""
        site, utterance_id = request.site, request.utterance_id
        corrected = await self._rpc.call(
            ReadCorrection(site=site, utterance_id=utterance_id, number=request.number, context=CONTEXT_UTTERANCES)
        )
        before = corrected.found
        epoch = await self._ownership.epoch(site, before.conversation_id)
        if epoch is None or not self._ownership.has(site, before.conversation_id, corrected.channel):
            raise NotOwnerError("The other side answers this conversation.")
        heard = Heard(
            text=corrected.text,
            channel=corrected.channel,
            context=corrected.context,
            site=site,
            conversation_id=before.conversation_id,
            utterance_id=utterance_id,
        )
        before = msgspec.structs.replace(
            before,
            owner=self._ownership.side if self._ownership.moves else before.owner,
            owner_epoch=max(epoch, before.owner_epoch),
        )
        self._ready[request.key] = await self._understanding.again(before, heard, first_revision(request.number))
        while len(self._ready) > READY:
            self._ready.popitem(last=False)

    def _publish(self, transaction: Transaction, request: UnderstandCorrection) -> Understood:
        ready = self._ready.pop(request.key, None)
        if ready is None:
            raise BusyError("Too many corrections at once; try again in a moment.")
        found, debt = ready
        if self._results.renew_in(transaction.connection, found, debt):
            text = "" if found.text is msgspec.UNSET else found.text
            transaction.after(lambda: self._understanding.correct(found.site, found.utterance_id, text))
        return Understood(revision=found.revision, insights=len(found.insights))
