"""Asks the service that knows: prompt versions, costs, words about a shift. Short, and with words for its absence."""

from typing import Final, TypeVar

import aiohttp
import msgspec
import structlog

from quickcomm.contracts.prompts import PromptsView
from quickcomm.contracts.questions import NARRATIVE, PROMPTS, USAGE, Narrated, ToNarrate
from quickcomm.contracts.usage import UsageReport
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import Instance, Registry
from quickcomm.kernel.errors import MALFORMED, BusyError, QuickCommError
from quickcomm.kernel.http import traced_client
from quickcomm.kernel.internal import Trust

ANSWER_S: Final = 2.0
WORDS_S: Final = 8.0
"""A language model finds them."""

T = TypeVar("T", bound=msgspec.Struct)
log = structlog.get_logger(__name__)


class AwayError(BusyError):
    """Who could answer is not there; the same question may be answered later."""

    code = "intelligence.away"


class Questions:
    def __init__(self, registry: Registry, trust: Trust, modules: frozenset[str], clock: Clock) -> None:
        """`modules`: those whose instances know."""
        self._registry = registry
        self._trust = trust
        self._modules = modules
        self._clock = clock
        self._clients: dict[Instance, aiohttp.ClientSession] = {}

    async def prompts(self) -> PromptsView:
        """Raises `AwayError`."""
        return await self._get(PROMPTS, {}, PromptsView, "which prompt versions are in force")

    async def usage(self, site: str, conversation_id: str | None, limit: int) -> UsageReport:
        """Raises `AwayError`."""
        query = {"site": site, "limit": str(limit)}
        if conversation_id is not None:
            query["conversation"] = conversation_id
        return await self._get(USAGE, query, UsageReport, "what the language model costs")

    async def narrate(self, site: str, facts: str) -> str | None:
        """None where nobody can find the words now."""
        body = msgspec.json.encode(ToNarrate(site=site, facts=facts))
        for instance in self._found():
            try:
                async with self._clock.timeout(WORDS_S):
                    return (await self._ask(instance, "POST", NARRATIVE, Narrated, body=body)).text
            except (aiohttp.ClientError, OSError, TimeoutError, QuickCommError) as error:
                log.info("questions.no_words", instance=instance.name, error=str(error)[:200])
        return None

    def connector(self) -> aiohttp.UnixConnector:
        """To one that is there. Raises `AwayError`."""
        for instance in self._found():
            return aiohttp.UnixConnector(instance.socket)
        raise AwayError("The intelligence service is away.")

    async def aclose(self) -> None:
        """After the last question. May be called again."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _found(self) -> list[Instance]:
        return [instance for instance in self._registry.instances() if instance.module in self._modules]

    async def _get(self, path: str, query: dict[str, str], kind: type[T], what: str) -> T:
        for instance in self._found():
            try:
                async with self._clock.timeout(ANSWER_S):
                    return await self._ask(instance, "GET", path, kind, query=query)
            except (aiohttp.ClientError, OSError, TimeoutError, QuickCommError) as error:
                log.info("questions.no_answer", instance=instance.name, path=path, error=str(error)[:200])
        raise AwayError(f"The intelligence service is away: only it knows {what}. It comes back by itself; try again.")

    async def _ask(
        self,
        instance: Instance,
        method: str,
        path: str,
        kind: type[T],
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> T:
        headers = self._trust.headers(instance.module)
        client = await self._client(instance)
        url = f"http://{instance.module}{path}"
        async with client.request(method, url, params=query, data=body, headers=headers) as answer:
            text = await answer.read()
        if not answer.ok:
            raise AwayError(f"It answered {answer.status}.")
        try:
            return msgspec.json.decode(text, type=kind)
        except MALFORMED as error:
            raise AwayError(f"Its answer cannot be read: {error}") from error

    async def _client(self, instance: Instance) -> aiohttp.ClientSession:
        """One an instance, kept open; those of instances that are gone are closed."""
        found = self._clients.get(instance)
        if found is None:
            living = set(self._registry.instances())
            for gone in [known for known in self._clients if known not in living]:
                await self._clients.pop(gone).close()
            found = self._clients[instance] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(instance.socket), trace_configs=traced_client()
            )
        return found
