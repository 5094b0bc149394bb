"""
Requests and replies of Bybit's public websocket: the exchange's answer to one text frame.

Decides acks, rejections and pongs in the words and shape of each category, and which topics a
connection has subscribed afterwards. Pure: it only knows topics through ``is_topic``, and returns
text.

    >>> session = ExchangeSession("linear", "d9avt8shteepr00gfc1g-4zd1x")
    >>> session.answer('{"op":"ping","req_id":"1"}', is_topic=str.isupper, now_ms=0).text
    b'{"success":true,"ret_msg":"pong","conn_id":"d9avt8shteepr00gfc1g-4zd1x","req_id":"1","op":"ping"}'

https://bybit-exchange.github.io/docs/v5/ws/connect is the documentation. Recorded but not
documented: the wording of rejections, all-or-nothing requests on contracts, and options that ack
every request. Neither documented nor recorded, so chosen here: spot rejects duplicate topics and
unknown requests like contracts, options ack ``unsubscribe`` in the shape of ``subscribe``,
unsubscribing an unknown topic succeeds, and a rejection of too many topics names none.

Limits are written here again on purpose: a mistake in ``shared/bybit.py`` must not be in the
simulated exchange as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from bybit_pipeline.shared.wire.messages import Category

SPOT_ARGS_MAX: Final = 10
"""Topics in one spot request."""
OPTION_TOPICS_MAX: Final = 2_000
"""Topics of one option connection."""
TOPIC_CHARACTERS_MAX: Final = 21_000
"""Total length of the topics of one connection."""


class Reply(NamedTuple):
    """The text to send back, and the topics to start and to stop delivering."""

    text: bytes
    subscribed: tuple[str, ...] = ()
    unsubscribed: tuple[str, ...] = ()


@dataclass
class ExchangeSession:
    """The subscriptions of one connection."""

    category: Category
    conn_id: str
    topics: dict[str, None] = field(default_factory=dict)
    """Subscribed topics in the order of their acks."""

    def answer(
        self,
        text: str | bytes,
        *,
        is_topic: Callable[[str], bool],
        now_ms: int,
        is_unavailable: Callable[[str], bool] = lambda _: False,
    ) -> Reply:
        """
        Update ``topics`` from one frame and return the exchange's answer.

        Args:
            text: The frame as received.
            is_topic: Returns True for a topic that the exchange serves.
            now_ms: The server's time; pongs of options contain it.
            is_unavailable: Returns True for a topic that cannot be subscribed at the moment.
        """
        try:
            request = msgspec.json.decode(text)
            if not isinstance(request, dict):
                raise msgspec.DecodeError("cannot unmarshal into Go value of type wsRequest")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return self._failure(f"Failed to decode incoming data: {error}", op="", req_id=None)
        op = request.get("op")
        req_id = _text_or_none(request.get("req_id"))
        if op == "ping":
            return self._pong(req_id, now_ms)
        if op not in ("subscribe", "unsubscribe"):
            return self._failure("error:invalid op", op=_text_or_none(op) or "", req_id=req_id)
        args = request.get("args")
        if not isinstance(args, list) or not args:
            return self._failure("error:invalid args", op=op, req_id=req_id)
        topics = [_text_or_none(arg) or "" for arg in args]
        if op == "subscribe":
            if any(is_unavailable(topic) for topic in topics):
                return self._unavailable(topics, req_id)
            return self._subscribe(topics, req_id, is_topic)
        return self._unsubscribe(topics, req_id)

    def _subscribe(
        self, topics: list[str], req_id: str | None, is_topic: Callable[[str], bool]
    ) -> Reply:
        rejection = self._too_many(topics) or self._rejection(topics, is_topic)
        if rejection:
            return self._failure(rejection, op="subscribe", req_id=req_id)
        new = tuple(topic for topic in dict.fromkeys(topics) if topic not in self.topics)
        self.topics.update(dict.fromkeys(new))
        return Reply(self._success("subscribe", topics, req_id), subscribed=new)

    def _unsubscribe(self, topics: list[str], req_id: str | None) -> Reply:
        gone = tuple(topic for topic in dict.fromkeys(topics) if topic in self.topics)
        for topic in gone:
            del self.topics[topic]
        return Reply(self._success("unsubscribe", topics, req_id), unsubscribed=gone)

    # -- rejections ------------------------------------------------------------------------------

    def _too_many(self, topics: list[str]) -> str:
        if self.category == "spot" and len(topics) > SPOT_ARGS_MAX:
            return f"args size >{SPOT_ARGS_MAX}"
        wanted = {**self.topics, **dict.fromkeys(topics)}
        if self.category == "option" and len(wanted) > OPTION_TOPICS_MAX:
            return f"args size >{OPTION_TOPICS_MAX}"
        if sum(map(len, wanted)) > TOPIC_CHARACTERS_MAX:
            return f"args length >{TOPIC_CHARACTERS_MAX}"
        return ""

    def _rejection(self, topics: list[str], is_topic: Callable[[str], bool]) -> str:
        """
        Return the reason to reject the whole request, or an empty text.

        The reason names only the first topic at fault. Options reject nothing: they ack a topic
        that they do not serve and then send nothing.
        """
        if self.category == "option":
            return ""
        seen: set[str] = set()
        for topic in topics:
            if not is_topic(topic):
                if self.category == "spot":
                    return f"Invalid symbol :[{topic}]"
                return f"error:handler not found,topic:{topic}"
            if topic in self.topics or topic in seen:
                return f"error:already subscribed,topic:{topic}"
            seen.add(topic)
        return ""

    # -- shapes ----------------------------------------------------------------------------------

    def _success(self, op: str, topics: list[str], req_id: str | None) -> bytes:
        if self.category == "option":
            return _json(
                success=True,
                conn_id=self.conn_id,
                data={"failTopics": [], "successTopics": topics},
                type="COMMAND_RESP",
            )
        ret_msg = op if self.category == "spot" else ""
        return self._ack(success=True, ret_msg=ret_msg, op=op, req_id=req_id)

    def _unavailable(self, topics: list[str], req_id: str | None) -> Reply:
        """Refuse a request for a reason that may pass. No recording shows one of options."""
        if self.category != "option":
            return self._failure("error:internal server error", op="subscribe", req_id=req_id)
        data = {"failTopics": topics, "successTopics": []}
        return Reply(_json(success=False, conn_id=self.conn_id, data=data, type="COMMAND_RESP"))

    def _failure(self, ret_msg: str, *, op: str, req_id: str | None) -> Reply:
        return Reply(self._ack(success=False, ret_msg=ret_msg, op=op, req_id=req_id))

    def _pong(self, req_id: str | None, now_ms: int) -> Reply:
        if self.category == "option":
            return Reply(_json(args=[str(now_ms)], op="pong"))
        if self.category == "spot":
            req_id = None
        return Reply(self._ack(success=True, ret_msg="pong", op="ping", req_id=req_id))

    def _ack(self, *, success: bool, ret_msg: str, op: str, req_id: str | None) -> bytes:
        """Contracts always have a ``req_id``, possibly empty; spot only if the request has one."""
        fields: dict[str, Any] = {
            "success": success,
            "ret_msg": ret_msg,
            "conn_id": self.conn_id,
        }
        if req_id is not None or self.category in ("linear", "inverse"):
            fields["req_id"] = req_id or ""
        return _json(**fields, op=op)


def _text_or_none(value: object) -> str | None:
    """Return other values as text: the exchange returns an integer ``req_id`` as a string."""
    if value is None or isinstance(value, str):
        return value
    return str(value)


def _json(**fields: Any) -> bytes:
    r"""Return compact JSON; ``<``, ``>`` and ``&`` are escaped (``\u003e``) as Bybit does."""
    text = msgspec.json.encode(fields)
    for character in b"<>&":
        text = text.replace(bytes([character]), b"\\u%04x" % character)
    return text
