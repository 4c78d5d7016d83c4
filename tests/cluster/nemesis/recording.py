"""Recording clients: they write, delete, describe, compare and swap, read and list through both APIs, and note all they are told.

Owns what is asked, what an answer means, and the histories. Never judges them: a call whose answer never came is noted as one
that nobody knows the end of. A name is used for some forty calls and then left alone, so that its history stays short enough to be
searched.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import md5
from itertools import count
from random import Random
from typing import Final, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.cluster.serve.swift_client import Answer
from tests.simulation.linearizability import Call, Ended, Kind, Value
from tests.simulation.seen_in_listings import Seen, wrong_in

CONTAINER: Final = "box"
PAUSE_S: Final = 0.1
"""Before a client that was told nothing goes on."""
PATIENCE_S: Final = 8.0
"""How long a client waits for anything to come, beyond which it does not know."""
LIVE_NAMES: Final = 8
CALLS_MAX: Final = 40
"""Of one name; and of those the ends of no more than UNKNOWN_MAX writes may be unknown before it is left alone."""
UNKNOWN_MAX: Final = 6
SIZES: Final = (0, 0, 400, 4_096, 4_096, 70_000, 1_500_000)
"""Bytes behind the number of a body; the last one is streamed, and a file of its own."""
ANY_METADATA: Final = -1
"""In place of a number where a listing does not show the metadata."""
_TYPE: Final = "x/"
_DONE: Final = {Kind.PUT: (200, 201), Kind.SWAP: (200, 201), Kind.DELETE: (204,), Kind.POST: (202,)}
_KINDS: Final = (
    (Kind.PUT, 26),
    (Kind.DELETE, 12),
    (Kind.POST, 10),
    (Kind.SWAP, 20),
    (Kind.READ, 22),
    (None, 10),
)


class User(NamedTuple):
    """Who asks, in either dialect."""

    token: str
    path: str
    """Of the account, such as `/v1/AUTH_acme`."""
    access_key: str
    secret_key: str


class Dialect(NamedTuple):
    """One of the two ways to ask for the same."""

    is_s3: bool
    user: User

    def ask(
        self,
        address: tuple[str, int],
        method: str,
        names: Sequence[str],
        body: bytes = b"",
        query: str = "",
        **given: str,
    ) -> Answer | None:
        """Send one request on a connection of its own; None when it was certainly never sent. Raises OSError, HTTPException."""
        headers = {name.replace("_", "-"): value for name, value in given.items()}
        path = "/".join(["" if self.is_s3 else self.user.path, *(quote(name, safe="") for name in names)])
        target = f"{path}?{query}" if query else path
        if method in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        if self.is_s3:
            host = f"{address[0]}:{address[1]}"
            request = AWSRequest(method, f"http://{host}{target}", data=body, headers=headers)
            credentials = Credentials(self.user.access_key, self.user.secret_key)
            S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
            headers = {name: str(value) for name, value in request.headers.items()}
        else:
            headers["X-Auth-Token"] = self.user.token
        connection = http.client.HTTPConnection(*address, timeout=PATIENCE_S)
        try:
            try:
                connection.connect()
            except OSError:
                return None
            connection.request(method, target, body or None, headers)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())
        finally:
            connection.close()


def content(number: int) -> bytes:
    """Return the body that a write of this number stores."""
    lead = b"body %d " % number
    return lead + bytes([number % 251]) * Random(number).choice(SIZES)


@dataclass
class Record:
    """What all clients have asked and been told. For several threads."""

    histories: dict[bytes, list[Call]] = field(default_factory=dict)
    pages: list[Seen] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers that may never be given, in sentences."""
    ended: Counter[str] = field(default_factory=Counter)
    _etags: dict[str, int] = field(default_factory=dict)
    _live: list[bytes] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _names: "count[int]" = field(default_factory=count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self, random: Random) -> bytes:
        """Return a name that is in use; those with a `p` are described anew, the others are swapped."""
        with self._lock:
            self._live = [name for name in self._live if self._is_short(self.histories[name])]
            while len(self._live) < LIVE_NAMES:
                number = next(self._names)
                name = b"%s%04d" % (b"ps"[number % 2 :][:1], number)
                self.histories[name] = []
                self._live.append(name)
            return random.choice(self._live)

    @staticmethod
    def _is_short(history: list[Call]) -> bool:
        unknown = sum(call.kind is not Kind.READ and call.outcome is Ended.UNKNOWN for call in history)
        return len(history) < CALLS_MAX and unknown < UNKNOWN_MAX

    def begin(self, kind: Kind, name: bytes, expected: Value | None = None) -> Call:
        """A call begins now."""
        with self._lock:
            number = next(self._numbers) if kind in (Kind.PUT, Kind.SWAP, Kind.POST) else 0
            if kind in (Kind.PUT, Kind.SWAP):
                self._etags[etag_of(number)] = number
            call = Call(kind, time.monotonic(), number, expected)
            self.histories[name].append(call)
            return call

    def end(self, call: Call, outcome: Ended, found: Value | None = None) -> None:
        """A call has ended just now; one of unknown outcome never does."""
        with self._lock:
            self.ended[f"{call.kind.name} {outcome.name}"] += 1
            call.outcome, call.found = outcome, found
            if outcome is not Ended.UNKNOWN:
                call.ended = time.monotonic()

    def heard(self, name: bytes) -> Value | None:
        """Return what stood there by the last that was heard of it."""
        with self._lock:
            told = [call for call in self.histories[name] if call.outcome is Ended.DONE]
        last = max(told, key=lambda call: call.ended, default=None)
        if last is None or last.kind is Kind.DELETE:
            return None
        return last.found if last.kind is Kind.READ else Value(last.number, last.number)

    def body_number(self, etag: str) -> int:
        """Return which write an entity tag is of; -1: of none."""
        with self._lock:
            return self._etags.get(etag, -1)

    def refuse(self, sentence: str) -> None:
        """Note what may not be."""
        with self._lock:
            self.wrong.append(sentence)

    def keep(self, page: Seen) -> None:
        """Note a page of a listing."""
        with self._lock:
            self.pages.append(page)
            self.ended["LIST DONE"] += 1


class Recorder:
    """One client. Its thread runs `work`; the rest asks for one thing each."""

    def __init__(
        self, number: int, record: Record, dialects: Sequence[Dialect], proxies: Sequence[tuple[str, int]]
    ) -> None:
        """Take where to note things, how to ask and whom."""
        self._record: Final = record
        self._dialects: Final = dialects
        self._proxies: Final = proxies
        self._random: Final = Random(number)

    def work(self, ended: threading.Event) -> None:
        """Ask until told to end."""
        while not ended.is_set():
            try:
                if not self.step():
                    ended.wait(PAUSE_S)
            except Exception as error:  # a client that breaks down is a run that proves nothing
                self._record.refuse(f"a client broke down: {error!r}")
                return

    def step(self) -> bool:
        """Ask for one thing; say whether it was told anything."""
        random = self._random
        dialect, address = random.choice(self._dialects), random.choice(self._proxies)
        (kind,) = random.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])
        name = self._record.choose(random)
        is_described = name.startswith(b"p")
        match kind:
            case None:
                return self.list(dialect, address, limit=random.choice((3, 10, 1000))) is not None
            case Kind.READ:
                return self.read(dialect, address, name)
            case Kind.POST if is_described:
                return self.write(self._dialects[0], address, Kind.POST, name)
            case Kind.POST:
                return self.write(dialect, address, Kind.PUT, name)
            case Kind.SWAP:
                # Entity tags tell bodies apart and no metadata, so what is described anew is only ever created by a swap.
                expected = None if is_described else self._record.heard(name)
                return self.write(dialect, address, kind, name, expected)
            case _:
                return self.write(dialect, address, kind, name)

    def write(
        self,
        dialect: Dialect,
        address: tuple[str, int],
        kind: Kind,
        name: bytes,
        expected: Value | None = None,
    ) -> bool:
        """PUT, swap, POST or DELETE; say whether it was told that this is done, or why not."""
        call = self._record.begin(kind, name, expected)
        headers = {"Content_Type": f"{_TYPE}{call.number}"} if call.number else {}
        if kind is Kind.SWAP and expected is None:
            headers["If_None_Match"] = "*"
        elif kind is Kind.SWAP and expected is not None:
            headers["If_Match"] = f'"{etag_of(expected.body)}"'
        method = "PUT" if kind is Kind.SWAP else kind.name
        body = content(call.number) if method == "PUT" else b""
        try:
            answer = dialect.ask(address, method, (CONTAINER, name.decode()), body, **headers)
        except (OSError, http.client.HTTPException):
            self._record.end(call, Ended.UNKNOWN)
            return False
        outcome = Ended.WITHOUT_EFFECT if answer is None else outcome_of(kind, answer)
        if outcome is None:
            self._record.refuse(f"{kind.name} of {name!r} was answered with {answer}")
        self._record.end(call, outcome or Ended.UNKNOWN)
        return outcome in (Ended.DONE, Ended.REFUSED)

    def read(self, dialect: Dialect, address: tuple[str, int], name: bytes) -> bool:
        """GET; say whether it was told what is there."""
        call = self._record.begin(Kind.READ, name)
        try:
            answer = dialect.ask(address, "GET", (CONTAINER, name.decode()))
        except (OSError, http.client.HTTPException):
            answer = None
        if answer is None or answer.status == 503:
            self._record.end(call, Ended.UNKNOWN)
            return False
        if answer.status == 404 and _is_of_object(answer):
            self._record.end(call, Ended.DONE)
            return True
        kind = answer.headers.get("content-type", "")
        words = answer.body[:32].split()
        if answer.status != 200 or not kind.startswith(_TYPE) or len(words) < 2:
            self._record.refuse(f"GET of {name!r} was answered with {_short(answer)}")
            self._record.end(call, Ended.UNKNOWN)
            return False
        value = Value(int(words[1]), int(kind.removeprefix(_TYPE)))
        if answer.body != content(value.body):
            self._record.refuse(f"GET of {name!r} brought other bytes than write {value.body} stored")
        self._record.end(call, Ended.DONE, value)
        return True

    def list(self, dialect: Dialect, address: tuple[str, int], limit: int, after: bytes = b"") -> Seen | None:
        """Ask for a page; None when it did not come."""
        keys = {"format": "json", "limit": limit, "marker": quote(after)}
        if dialect.is_s3:
            keys = {"list-type": 2, "max-keys": limit, "start-after": quote(after)}
        began = time.monotonic()
        try:
            query = "&".join(f"{key}={value}" for key, value in keys.items())
            answer = dialect.ask(address, "GET", (CONTAINER,), query=query)
        except (OSError, http.client.HTTPException):
            return None
        if answer is None or answer.status == 503:
            return None
        if answer.status != 200:
            self._record.refuse(f"a listing was answered with {_short(answer)}")
            return None
        shown = self._shown_by_s3(answer) if dialect.is_s3 else self._shown_by_swift(answer)
        upto = max(shown) if len(shown) == limit else None
        page = Seen(began, time.monotonic(), after, upto, shown)
        self._record.keep(page)
        return page

    def _shown_by_swift(self, answer: Answer) -> dict[bytes, Value]:
        return {
            item["name"].encode(): Value(
                self._record.body_number(item["hash"]), int(item["content_type"].removeprefix(_TYPE))
            )
            for item in json.loads(answer.body)
        }

    def _shown_by_s3(self, answer: Answer) -> dict[bytes, Value]:
        space = "{http://s3.amazonaws.com/doc/2006-03-01/}"
        found = ElementTree.fromstring(answer.body).findall(f"{space}Contents")
        return {
            (item.findtext(f"{space}Key") or "").encode(): Value(
                self._record.body_number((item.findtext(f"{space}ETag") or "").strip('"')), ANY_METADATA
            )
            for item in found
        }


def etag_of(number: int) -> str:
    """Return the entity tag of the body of this number."""
    return md5(content(number), usedforsecurity=False).hexdigest()


def outcome_of(kind: Kind, answer: Answer) -> Ended | None:
    """Return what an answer says of a write; None: it may not be given."""
    if answer.status in _DONE[kind]:
        return Ended.DONE
    if answer.status == 507 or (answer.status == 503 and b"nothing was changed" in answer.body):
        return Ended.WITHOUT_EFFECT
    if answer.status == 503:
        return Ended.UNKNOWN
    if answer.status == 412 and kind is Kind.SWAP:
        return Ended.REFUSED
    if answer.status == 404 and _is_of_object(answer):
        return {Kind.DELETE: Ended.DONE, Kind.POST: Ended.REFUSED, Kind.SWAP: Ended.REFUSED}.get(kind)
    return None


def wrong_pages(pages: Sequence[Seen], histories: Mapping[bytes, Sequence[Call]]) -> list[str]:
    """Return what pages cannot have shown, or must have; where one does not show metadata, any will do."""
    wrong = []
    for page in pages:
        wrong += [
            f"a listing shows {name!r}, which nobody wrote" for name in page.shown.keys() - histories.keys()
        ]
        for name, history in histories.items():
            value = page.shown.get(name)
            bodies = {call.number for call in history if call.kind in (Kind.PUT, Kind.SWAP)}
            if value is not None and value.body not in bodies:
                wrong.append(f"a listing shows a body at {name!r} that nobody wrote there")
                continue
            shown = [{}] if value is None else [{name: each} for each in _readings(value, history)]
            found = [wrong_in(replace(page, shown=each), {name: history}) for each in shown]
            if all(found):
                wrong += found[0]
    return wrong


def _readings(value: Value, history: Sequence[Call]) -> list[Value]:
    """Return what a page may mean by what it shows: where that is no metadata, it may be any."""
    if value.metadata != ANY_METADATA:
        return [value]
    numbers = [value.body, *(call.number for call in history if call.kind is Kind.POST)]
    return [Value(value.body, number) for number in numbers]


def _is_of_object(answer: Answer) -> bool:
    """Whether a 404 is about the object; the container is there all the while."""
    return b"no such object" in answer.body or b"NoSuchKey" in answer.body


def _short(answer: Answer) -> str:
    return f"{answer.status} {answer.headers} {answer.body[:200]!r}"
