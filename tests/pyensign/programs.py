"""Programs on the official asyncio client, as its users write them; each fails by an exception.

Run one by its name: ``python programs.py publish``. The node is found by the ENSIGN_* variables. Nothing of this
project is imported. What the official client is known to do wrong is kept away from; where that shapes a program, it
says so.
"""

import asyncio
import faulthandler
import os
import sys
import time

from pyensign import mimetypes
from pyensign.auth.tokens import expires_at
from pyensign.ensign import Ensign
from pyensign.enum import TopicState
from pyensign.events import Event
from pyensign.exceptions import (
    EnsignInvalidArgument,
    EnsignRPCError,
    EnsignTopicNotFoundError,
    InvalidQueryError,
    QueryNoRows,
    UnknownTopicError,
)
from pyensign.utils.rlid import RLID

#: How long one step may take, and a whole program, which may block where no step can be cut short, in seconds.
LIMIT, LAST = 15.0, 40.0


def connect(**options):
    """Make a client; the official one reads the API key from the environment, and nothing else."""
    return Ensign(
        endpoint=os.environ["ENSIGN_ENDPOINT"],
        insecure=os.environ["ENSIGN_INSECURE"] == "true",
        auth_url=os.environ["ENSIGN_AUTH_URL"],
        **options,
    )


def within(step):
    """Await a step for no longer than the limit."""
    return asyncio.wait_for(step, LIMIT)


async def until(condition):
    """Wait until an awaited condition holds."""
    end = time.monotonic() + LIMIT
    while not await condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.02)


def same(seen, wanted):
    """Fail unless the two are equal."""
    assert seen == wanted, f"{seen!r} instead of {wanted!r}"


async def refused(error, step):
    """Await a step that has to raise this very error; returns it."""
    try:
        done = await within(step)
    except error as raised:
        same(type(raised), error)
        return raised
    raise AssertionError(f"{done!r} instead of {error.__name__}")


def numbered(*numbers):
    """Return an event for each number, with all that an event can carry."""
    return [
        Event(
            f"event {number}".encode("ascii"),
            mimetypes.TextPlain,
            schema_name="Numbered",
            schema_version="1.2.3",
            meta={"number": str(number)},
        )
        for number in numbers
    ]


def same_events(received, sent):
    """Fail unless the received events are those that were sent, with ids of the node in ascending order."""
    same(len(received), len(sent))
    for theirs, ours in zip(received, sent):
        same(theirs.data, ours.data)
        same(theirs.mimetype, ours.mimetype)
        same((theirs.type.name, theirs.type.semver()), (ours.type.name, ours.type.semver()))
        same(dict(theirs.meta), ours.meta)
        same(theirs.created, ours.created)
        same(theirs.decode(), ours.decode())
        same(type(theirs.id), RLID)
    ids = [event.id.bytes for event in received]
    same(ids, sorted(set(ids)))


async def acknowledged(events):
    """Wait for the acknowledgement of each event; returns them."""
    return [await within(event.wait_for_ack()) for event in events]


async def published(client, topic, events, **options):
    """Publish events and wait for the acknowledgement of each."""
    await within(client.publish(topic, events, **options))
    return await acknowledged(events)


async def status():
    """The server is healthy and tells its version and how long it is up."""
    async with connect() as client:
        found = await within(client.status())
        same(found.status, 1)
        assert found.version and found.uptime.ToNanoseconds() > 0, str(found)


async def topics():
    """Topics are made, found by name, and destroyed, after which the name is free again."""
    # Two clients, since the first would answer from its cache. The second has none, which is also the only way to
    # destroy a topic: a cached id is not of the type that the message takes.
    async with connect() as client, connect(disable_topic_cache=True) as uncached:
        made = await within(client.create_topic("topics.made"))
        same(await within(client.ensure_topic_exists("topics.made")), made)
        same(await within(uncached.ensure_topic_exists("topics.made")), made)
        ensured = await within(uncached.ensure_topic_exists("topics.ensured"))
        for name, id in (("topics.made", made), ("topics.ensured", ensured)):
            same(await within(uncached.topic_exists(name)), True)
            same(await within(uncached.topic_id(name)), id)
        listed = {topic.name: topic for topic in await within(client.get_topics()) if topic.name.startswith("topics.")}
        same({name: str(topic.id) for name, topic in listed.items()}, {"topics.made": made, "topics.ensured": ensured})
        for topic in listed.values():
            same(topic.status, TopicState.READY)
            assert abs(topic.created.timestamp() - time.time()) < 3600 and topic.modified >= topic.created, str(topic)

        same(await within(uncached.topic_exists("topics.unknown")), False)
        await refused(EnsignTopicNotFoundError, uncached.topic_id("topics.unknown"))
        same((await refused(EnsignRPCError, uncached.create_topic("topics.made"))).name, "ALREADY_EXISTS")
        await refused(EnsignInvalidArgument, uncached.create_topic("no spaces"))

        async def gone():
            return not await within(uncached.topic_exists("topics.made"))

        await within(uncached.destroy_topic("topics.made"))
        await until(gone)
        await refused(EnsignTopicNotFoundError, uncached.destroy_topic("topics.made"))
        assert await within(uncached.create_topic("topics.made")) != made


async def pages():
    """More topics than one page holds are listed completely, each once."""
    async with connect() as client:
        made = {f"pages.{number}": await within(client.create_topic(f"pages.{number}")) for number in range(120)}
        listed = [topic for topic in await within(client.get_topics()) if topic.name.startswith("pages.")]
        same(len(listed), len(made))
        same({topic.name: str(topic.id) for topic in listed}, made)


async def publish():
    """Each event is acknowledged, to the callback and to who waits for it, by its own local id and in order."""
    acks = []

    async def on_ack(ack):
        acks.append(ack)

    async with connect() as client, connect() as reader:
        id = await within(client.create_topic("publish"))
        first = numbered(*range(40))
        # One callback for both calls: the official client keeps the one of the first for the topic.
        replies = await published(client, "publish", first, on_ack=on_ack)
        second = numbered(*range(40, 50))
        replies += await published(client, id, second, on_ack=on_ack)
        events = first + second
        same([ack.id for ack in acks], [event.id for event in events])
        same([reply.id for reply in replies], [ack.id for ack in acks])
        same({len(ack.id) for ack in acks}, {16})
        same(len({ack.id for ack in acks}), len(events))
        times = [ack.committed.ToNanoseconds() for ack in acks]
        same(times, sorted(times))
        assert abs(times[0] / 1e9 - time.time()) < 3600, times[0]
        assert all(abs(reply.committed.timestamp() - at / 1e9) < 0.001 for reply, at in zip(replies, times))
        for event in events:
            same((event.published(), event.acked(), event.nacked()), (True, True, False))
        await within(client.flush())

        made = numbered(0)
        await published(client, "publish.made", made, ensure_exists=True)
        # From a client that did not make the topic, so that the name is found in what the stream tells at its start.
        more = numbered(50)
        await published(reader, "publish", more)
        await refused(UnknownTopicError, reader.publish("publish.unknown", *numbered(0)))
        same_events(await rows(reader, "SELECT * FROM publish"), events + more)


async def subscribe():
    """Events arrive once and in order, before and after others were acknowledged, by name and by id."""
    async with connect() as publisher, connect() as by_name:
        id = await within(publisher.create_topic("subscribe"))
        received = {"subscribe": [], id: []}

        async def consume(client, topic):
            async for event in client.subscribe(topic):
                same(await within(event.ack()), True)
                same(await within(event.ack()), True)
                same(await within(event.nack(1)), False)
                received[topic].append(event)

        tasks = [asyncio.ensure_future(consume(by_name, "subscribe")), asyncio.ensure_future(consume(publisher, id))]
        sent = []

        async def both_listen():
            sent.extend(numbered(len(sent)))
            await published(publisher, "subscribe", sent[-1:])
            return all(received.values()) or any(task.done() for task in tasks)

        # The official client does not tell when a subscription is open: when the first event arrives, it is.
        await until(both_listen)
        burst = numbered(*range(len(sent), len(sent) + 30))
        await published(publisher, "subscribe", burst)
        sent.extend(burst)

        async def all_arrived():
            last = [events[-1].data if events else None for events in received.values()]
            return set(last) == {sent[-1].data} or any(task.done() for task in tasks)

        await until(all_arrived)
        same([task.done() and task.exception() for task in tasks], [False, False])
        for events in received.values():
            same_events(events, sent[-len(events) :])
            same({event.acked() for event in events}, {True})
    await within(asyncio.gather(*tasks))


async def rows(client, text):
    """Return all rows of a query."""
    return await within((await within(client.query(text))).fetchall())


async def query():
    """What is stored comes back by each way to fetch it; no rows and bad queries are errors of their own."""
    async with connect() as client:
        await within(client.create_topic("query-empty"))
        await within(client.create_topic("query"))
        events = numbered(*range(30))
        await published(client, "query", events)

        cursor = await within(client.query("SELECT * FROM query"))
        found = [await within(cursor.fetchone())] + await within(cursor.fetchmany(9))
        found += [row async for row in cursor]
        same_events(found, events)
        same((await within(cursor.fetchone()), await within(cursor.fetchall())), (None, []))
        same_events(await rows(client, "SELECT * FROM query OFFSET 10 LIMIT 5"), events[10:15])
        same_events(await rows(client, "select * from query limit 7"), events[:7])
        cursor = await within(client.query("SELECT * FROM query"))
        cursor.close()
        same(await within(cursor.fetchone()), None)

        await refused(QueryNoRows, client.query("SELECT * FROM query-empty"))
        await refused(QueryNoRows, client.query("SELECT * FROM query OFFSET 30"))
        unknown = await refused(InvalidQueryError, client.query("SELECT * FROM query-unknown"))
        same(str(unknown), "unknown topic in query")
        for text in ("SELECT", "INSERT INTO query", "SELECT * FROM query LIMIT -1"):
            assert str(await refused(InvalidQueryError, client.query(text))), text


async def info():
    """The project and its topics are told, all of them or those that are asked for."""
    async with connect() as client:
        made = [await within(client.create_topic(f"info.{number}")) for number in range(2)]
        listed = {str(topic.id) for topic in await within(client.get_topics())}
        whole = await within(client.info())
        same((whole.num_topics, whole.num_readonly_topics), (len(listed), 0))
        same({str(topic.id) for topic in whole.topics}, listed)
        same({topic.project_id for topic in whole.topics}, {whole.id})
        one = await within(client.info(made[:1]))
        same((one.id, one.num_topics, [str(topic.id) for topic in one.topics]), (whole.id, 1, made[:1]))
        assert made[0] in str(one), str(one)


async def counts():
    """The friendly server's counts follow what is published; the other's may be 75 seconds late."""
    async with connect() as client:
        id = await within(client.create_topic("counts"))
        events = numbered(*range(8))
        await published(client, "counts", events)

        async def counted():
            return (await within(client.info([id]))).events == len(events)

        await until(counted)
        (topic,) = (await within(client.info([id]))).topics
        same((topic.events, topic.duplicates, len(topic.event_offset_id)), (8, 0, 10))
        assert topic.data_size_bytes > sum(len(event.data) for event in events), str(topic)
        (kind,) = topic.types
        same((kind.type.name, kind.type.semver(), kind.mimetype), ("Numbered", "1.2.3", mimetypes.TextPlain))
        same((kind.events, kind.duplicates), (8, 0))


async def refresh():
    """Twice the access token expires: open streams go on, and new calls and streams are let in by a refreshed token."""
    async with connect() as client:
        auth = client.client.connection.auth
        await within(client.create_topic("refresh"))
        sent = numbered(0)
        await published(client, "refresh", sent)
        for turn in (1, 2):
            expired = auth._access_token
            while time.time() <= expires_at(expired):  # no call meanwhile: one that is under way then may be refused
                await asyncio.sleep(0.02)
            more = numbered(2 * turn - 1)
            await published(client, "refresh", more)
            same(auth._access_token, expired)
            same_events(await rows(client, "SELECT * FROM refresh"), sent + more)
            assert auth._access_token != expired, "still the expired token"
            last = numbered(2 * turn)
            await published(client, f"refresh.{turn}", last, ensure_exists=True)
            same_events(await rows(client, f"SELECT * FROM refresh LIMIT {len(sent)}"), sent)
            sent += more


if __name__ == "__main__":
    faulthandler.dump_traceback_later(LAST, exit=True)
    asyncio.run(globals()[sys.argv[1]]())
