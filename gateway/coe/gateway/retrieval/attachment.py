"""Chat that answers from a store: experts.yaml attaches a vector store to a category, and the chunks that fit the last
ask best go into the prompt. Streams pass unchanged; headers name the sources, and the body of a whole answer does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from coe.base.errors import RouterError
from coe.base.json_text import to_json
from coe.decision_log.decision_record import DecisionKind
from coe.gateway.chat_request import ChatRequest, parts
from coe.gateway.exchange import RequestContext
from coe.gateway.retrieval.log import RetrievalExchange, RetrievalLog
from coe.retrieval.service import RetrievalService
from coe.retrieval.stores.cutting import count_tokens
from coe.retrieval.stores.store_search import Found, SearchRequest
from coe.router.capabilities import Capabilities
from coe.router.retrieval_config import AttachedStore
from coe.router.section import AUTO
from coe.router.types import RoutingDecision

MAX_HEADER_SOURCES = 20
PREAMBLE_CHARS = 1000
"""Around the passages, more than there is."""

PREAMBLE = "Answer from these sources where they help, and name the numbers of those you used, like [1].\n\n"
QUESTION = "\n\nQuestion: "

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Passages that went into a prompt. `found` is empty when nothing fitted, or when the store could not be asked."""

    store_id: str
    found: tuple[Found, ...] = ()
    decision_id: str | None = None
    expert: str | None = None
    is_failed: bool = False

    def headers(self) -> dict[str, str]:
        names = [each.chunk.document_id for each in self.found[:MAX_HEADER_SOURCES]]
        headers = {"x-coe-store": self.store_id, "x-coe-sources": ", ".join(names) or "none"}
        if self.is_failed:
            headers["x-coe-sources"] = "unavailable"
        if self.decision_id is not None and self.expert is not None:
            headers |= {"x-coe-retrieval-decision-id": self.decision_id, "x-coe-retrieval-expert": self.expert}
        return headers

    def in_body(self, body: bytes) -> bytes:
        """A whole answer with a field `coe` that lists the sources; every other byte stays."""
        end = body.rfind(b"}")
        if end < 0 or not body.lstrip().startswith(b"{"):
            return body
        listed = [
            {
                "number": number,
                "document_id": each.chunk.document_id,
                "file_id": each.chunk.file_id,
                "filename": each.chunk.filename,
                "score": round(each.score, 6),
            }
            for number, each in enumerate(self.found, start=1)
        ]
        note = {"store": self.store_id, "retrieval_decision_id": self.decision_id, "sources": listed}
        is_first = body[:end].strip() == b"{"
        return body[:end] + (b"" if is_first else b",") + b'"coe":' + to_json(note) + body[end:]


class Attachments:
    """The stores of categories, by which a prompt may grow by `added_chars` characters at most.

    Args:
        capabilities: by expert: sources that its context cannot hold are left out.
    """

    def __init__(self, service: RetrievalService, log: RetrievalLog, capabilities: Mapping[str, Capabilities]) -> None:
        self._service, self._log, self._capabilities = service, log, capabilities
        stores = service.config.attach.values()
        self.added_chars = max((each.max_chars + PREAMBLE_CHARS for each in stores), default=0)

    async def enrich(
        self, context: RequestContext, request: ChatRequest, decision: RoutingDecision
    ) -> tuple[ChatRequest, Sources | None]:
        """The request with sources in its last ask, where a store is attached to the decision's category.

        A store that cannot be asked in time leaves the request as it is. Where the client named the expert, nothing was
        classified and nothing is attached: then the sources are None.
        """
        attached = self._service.config.attach.get(decision.category)
        if attached is None or not decision.reason.is_routed:
            return request, None
        if not request.text.strip():
            return request, Sources(attached.store)
        try:
            async with asyncio.timeout(attached.timeout_s):
                sources = await self._search(context, request.text, attached)
        except (RouterError, TimeoutError) as error:
            reason = str(error) or f"they took more than {attached.timeout_s:g} s"
            logger.warning("a chat is answered without the sources of %s: %s", attached.store, reason)
            return request, Sources(attached.store, is_failed=True)
        found = fitting(sources.found, attached)
        while found:
            enriched = with_sources(request, found)
            if self._capabilities[decision.expert].lacks(enriched.facts) is None:
                return enriched, replace(sources, found=tuple(found))
            found = found[:-1]
        return request, replace(sources, found=())

    async def _search(self, context: RequestContext, text: str, attached: AttachedStore) -> Sources:
        stores = self._service.stores
        searching = RetrievalExchange(
            DecisionKind.SEARCH, context.request_id, context.caller.key_id, AUTO, context.session_id, context.watch
        )
        store = await stores.store(None, attached.store)
        request = SearchRequest((text,), attached.results, score_threshold=attached.min_score)
        answer = await self._service.search(context.caller.key_id or "", store, request)
        searching.overhead_ms = answer.routed.routing_ms
        outcome = self._log.outcomes_of(
            answer.routed,
            store_id=attached.store,
            documents=[each.chunk.document_id for each in answer.found],
            prompt_tokens=[count_tokens(text)],
        )[0]
        await self._log.write(searching, [outcome])
        return Sources(attached.store, answer.found, outcome.decision_id, outcome.decision.expert)


def fitting(found: Sequence[Found], attached: AttachedStore) -> list[Found]:
    """The best chunks that together stay within `max_chars`."""
    chars = accumulate(len(each.chunk.text) for each in found)
    return [each for each, used in zip(found, chars, strict=True) if used <= attached.max_chars]


def with_sources(request: ChatRequest, found: Sequence[Found]) -> ChatRequest:
    """The request with numbered sources before the text of its last user message that has one."""
    added = prompt_of(found)
    messages = list(request.messages)
    place = next(i for i in reversed(range(len(messages))) if messages[i]["role"] == "user" and has_text(messages[i]))
    messages[place] = {**messages[place], "content": prefixed(messages[place], added)}
    facts = replace(request.facts, prompt_chars=request.facts.prompt_chars + len(added))
    return request._replace(body={**request.body, "messages": messages}, facts=facts)


def prompt_of(found: Sequence[Found]) -> str:
    listed = [f"[{number}] {each.chunk.filename}\n{each.chunk.text}" for number, each in enumerate(found, start=1)]
    return PREAMBLE + "\n\n".join(listed) + QUESTION


def has_text(message: Mapping[str, object]) -> bool:
    content = message.get("content")
    return bool(content) if isinstance(content, str) else any(part["type"] == "text" for part in parts(message))


def prefixed(message: Mapping[str, object], added: str) -> object:
    """The content with a text before it; of a list of parts, before the first text."""
    content = message["content"]
    if isinstance(content, str):
        return added + content
    listed = parts(message)
    place = next(i for i, part in enumerate(listed) if part["type"] == "text")
    first = {**listed[place], "text": added + str(listed[place]["text"])}
    return [*listed[:place], first, *listed[place + 1 :]]
