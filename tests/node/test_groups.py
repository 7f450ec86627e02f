"""Consumer groups and deduplication of a friendly node, over the wire and with our client."""

import json
import queue
import threading

import pytest

from ensign_sync.events import Event
from ensign_sync.ids import ULID
from ensign_sync.node import Node
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, messages, methods
from tests.node.raw import Raw, RawStream, event, refusal, subscription
from tests.size import by_size
from tests.waiting import eventually


def put(raw, count, start=0, topic="weather"):
    """Publish numbered events and wait for their acks."""
    stream, topics = raw.publisher()
    payloads = [codec.encode_event(Event(b"%d" % n)) for n in range(start, start + count)]
    stream.send(*(event(topics[topic], b"%d" % n, payload) for n, payload in enumerate(payloads)))
    answers = [stream.take() for _ in range(count)]
    assert all(isinstance(answer, frames.Ack) for answer in answers)
    stream.cancel()


def number(delivery):
    return int(codec.decode_event(delivery, "t").data)


def ack(stream, delivery):
    stream.send(codec.encode_subscriber_frame(frames.Ack(delivery.id)))


def nack(stream, delivery, code=104):
    stream.send(codec.encode_subscriber_frame(frames.Nack(delivery.id, code)))


class Worker(threading.Thread):
    """A member that acknowledges what it gets, but for what its ``judge`` says."""

    def __init__(self, raw, group, judge=lambda n, times: True):
        super().__init__(daemon=True)
        self.stream = raw.subscriber("weather", group=group)
        self.judge, self.got = judge, []
        self.start()

    def run(self):
        for delivery in iter(self.stream.take, None):
            n = number(delivery)
            self.got.append(n)
            if self.judge(n, self.got.count(n)):
                ack(self.stream, delivery)
            else:
                nack(self.stream, delivery)

    def stop(self):
        self.stream.cancel()
        self.join(30)


def test_a_group_shares_the_work(raw_friendly):
    """Every event goes to one member of a group, and to every group."""
    one, two = Worker(raw_friendly, "g"), Worker(raw_friendly, "g")
    other = Worker(raw_friendly, "h")
    alone = Worker(raw_friendly, "")
    put(raw_friendly, 200)
    eventually(lambda: len(one.got) + len(two.got) >= 200 and len(other.got) >= 200 and len(alone.got) >= 200)
    assert sorted(one.got + two.got) == list(range(200))
    assert one.got and two.got
    assert other.got == alone.got == list(range(200))
    for worker in (one, two, other, alone):
        worker.stop()


def test_what_is_nacked_comes_again(raw_friendly):
    """Until it is acknowledged, by whomever."""
    worker = Worker(raw_friendly, "g", lambda n, times: n % 3 or times > 2)
    put(raw_friendly, 30)
    eventually(lambda: sorted(set(worker.got)) == list(range(30)) and worker.got.count(27) == 3)
    assert {n: worker.got.count(n) for n in range(30)} == {n: 1 if n % 3 else 3 for n in range(30)}
    worker.stop()


def test_what_is_not_acknowledged_comes_again(raw_friendly):
    """A member that goes away leaves its events to the others; so does one that is silent for the group's time."""
    quiet = raw_friendly.subscriber("weather", group="g")
    put(raw_friendly, 10)
    assert [number(quiet.take()) for _ in range(10)] == list(range(10))
    quiet.cancel()
    worker = Worker(raw_friendly, "g")
    eventually(lambda: sorted(worker.got) == list(range(10)))
    worker.stop()


def test_the_time_of_a_group(raw_friendly):
    """delivery_timeout says after how many seconds of silence events go to somebody else."""
    from ensign_sync.api.v1beta1 import ensign_pb2, groups_pb2

    def join(at_most_once=False):
        group = groups_pb2.ConsumerGroup(name="t" + str(at_most_once))
        group.delivery_timeout.nanos = 300_000_000
        if at_most_once:
            group.delivery = groups_pb2.AT_MOST_ONCE
        asked = ensign_pb2.Subscription(topics=["weather"], group=group)
        stream = RawStream(raw_friendly, methods.SUBSCRIBE, codec.decode_subscribe_reply)
        stream.send(ensign_pb2.SubscribeRequest(subscription=asked).SerializeToString())
        stream.take()
        return stream

    silent, once = join(), join(at_most_once=True)
    put(raw_friendly, 3)
    assert [number(silent.take()) for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    assert [number(once.take()) for _ in range(3)] == [0, 1, 2]
    assert once.nothing(0.6)
    for stream in (silent, once):
        stream.cancel()


def test_a_group_outlives_the_node(tmp_path):
    """After a restart a group goes on where it was: nothing is lost, and little comes again."""
    path = str(tmp_path / "data.db")
    with Node(path, topics=["weather"], strict=False) as node:
        with Raw(node) as raw:
            worker = Worker(raw, "g", lambda n, times: True)
            put(raw, 50)
            eventually(lambda: len(worker.got) == 50)
            eventually(lambda: len(node.acks) == 50)
            worker.stop()
            put(raw, 10, start=50)
        node.restart()
        with Raw(node) as raw:
            worker = Worker(raw, "g")
            eventually(lambda: len(worker.got) >= 10)
            worker.stop()
        assert sorted(worker.got) == list(range(50, 60)), "nobody listened when these came"


def test_members_come_and_go_under_load(raw_friendly):
    """While members join, leave and vanish, every event is worked on, and none stays open."""
    count = by_size(2_000, 1_000, 5_000, 50_000)
    done = set()

    def judge(n, times):
        done.add(n)
        return n % 17 != 0 or times > 1

    workers = [Worker(raw_friendly, "g", judge) for _ in range(3)]
    publisher = threading.Thread(target=put, args=(raw_friendly, count))
    publisher.start()
    for round_ in range(by_size(5, 3, 10, 50)):
        workers.pop(0).stop()
        workers.append(Worker(raw_friendly, "g", judge))
        eventually(lambda r=round_: len(done) >= min(count, r * 20), 60)
    publisher.join(120)
    eventually(lambda: len(done) == count, 120)
    for worker in workers:
        worker.stop()
    groups = raw_friendly.node._living.service.groups
    (group,) = groups._groups.values()
    print(f"{count} events, {group.redelivered} delivered again")
    assert group.redelivered > 0


def test_our_client_in_a_group(friendly):
    """consumer_group= shares the work among clients, and a nack brings an event back."""
    with friendly.client() as client, friendly.client() as other:
        members = [each.subscribe("weather", consumer_group="g") for each in (client, other)]
        client.publish("weather", [str(n) for n in range(20)])
        got = []
        for sub in members:
            for _ in range(10):
                received = sub.get(timeout=30)
                got.append(received.data)
                sub.ack(received)
        assert sorted(got, key=int) == [str(n).encode() for n in range(20)]


def test_a_reset_while_a_group_works(friendly, raw_friendly):
    """The groups are forgotten, their streams end, and nothing is left open."""
    members = [raw_friendly.subscriber("weather", group="g") for _ in range(20)]
    put(raw_friendly, 100)
    friendly.reset()
    for member in members:
        member.rest()
        assert member.status == ("OK", "")
    eventually(lambda: friendly.streams == 0)
    worker = Worker(raw_friendly, "g")
    put(raw_friendly, 5)
    eventually(lambda: len(worker.got) == 5)
    worker.stop()


def test_a_member_that_does_not_read(friendly, raw_friendly):
    """It gets a few megabytes, and the others get the rest."""
    requests = queue.Queue()
    stalled = raw_friendly.channel.stream_stream(methods.SUBSCRIBE.path)(
        iter(requests.get, None), metadata=raw_friendly.metadata(None), timeout=120
    )
    requests.put(subscription("weather", group="g"))
    next(stalled)
    stream, topics = raw_friendly.publisher()
    for n in range(100):
        stream.send(event(topics["weather"], b"%d" % n, codec.encode_event(Event(bytes(1_000_000)))))
        stream.take()
    held = sum(call.waiting_bytes for call in friendly._living._server._calls)
    assert held < 32 << 20
    client = friendly.client()
    worker = client.subscribe("weather", consumer_group="g")
    got = [worker.get(timeout=60) for _ in range(40)]
    for received in got:
        worker.ack(received)
    stalled.cancel()
    requests.put(None)
    for _ in range(60):
        received = worker.get(timeout=60)
        worker.ack(received)
        got.append(received)
    assert len({e.id for e in got}) == 100
    client.close()
    stream.cancel()


# deduplication in real time


def policy(raw, strategy, keys=(), fields=(), topic="weather"):
    """Set a policy, and wait until it is in force."""
    from ensign_sync.api.v1beta1 import topic_pb2

    id = raw.topic_id(topic)
    wanted = topic_pb2.Deduplication(strategy=strategy, keys=keys, fields=fields)
    request = topic_pb2.TopicPolicy(id=str(ULID(id)), deduplication_policy=wanted)
    reply = topic_pb2.TopicStatus.FromString(raw(methods.SET_TOPIC_POLICY, request.SerializeToString()))

    def ready():
        record = topic_pb2.Topic.FromString(raw(methods.RETRIEVE_TOPIC, messages.retrieve_topic_request(ULID(id))))
        return record.status == topic_pb2.READY

    eventually(ready)
    return reply.state


PENDING, READY = 4, 1


def publish(raw, *events):
    """Publish events and wait for their acks."""
    stream, topics = raw.publisher()
    for n, made in enumerate(events):
        stream.send(event(topics["weather"], b"%d" % n, codec.encode_event(made)))
    answers = [stream.take() for _ in events]
    assert all(isinstance(answer, frames.Ack) for answer in answers)
    stream.cancel()


def rows(raw, duplicates=False):
    call = raw.channel.unary_stream(methods.ENSQL.path)
    request = messages.query_request("SELECT * FROM weather", None, duplicates)
    return [codec.decode_row(row) for row in call(request, metadata=raw.metadata(None), timeout=30)]


def texts(found):
    return [codec.decode_event(row, "t").data.decode() for row in found]


def test_new_duplicates_are_hidden(raw_friendly):
    """Acknowledged and stored, but neither delivered nor returned; with include_duplicates they come whole."""
    assert policy(raw_friendly, 3) == PENDING
    assert policy(raw_friendly, 3) == READY, "it is the policy already"
    subscriber = raw_friendly.subscriber()
    publish(raw_friendly, *(Event(data) for data in (b"a", b"b", b"a", b"a", b"c")))
    publish(raw_friendly, Event(b"b"), Event(b"d"))
    assert texts(rows(raw_friendly)) == list("abcd")
    assert texts([subscriber.take() for _ in range(4)]) == list("abcd")
    everything = rows(raw_friendly, duplicates=True)
    assert texts(everything) == list("abaacbd")
    assert [row.is_duplicate for row in everything] == [False, False, True, True, False, True, False]
    assert texts(raw_friendly.rows("SELECT * FROM weather OFFSET 4")) == ["c", "d"]
    with raw_friendly.node.client() as client:
        (topic,) = client.info().topics
        assert (topic.events, topic.duplicates) == (7, 3)
    subscriber.cancel()


@pytest.mark.parametrize(
    ("strategy", "names", "wanted"),
    [
        (2, {}, ["1", "2", "1 other meta"]),
        (3, {}, ["1", "2"]),
        (4, {"keys": ["k"]}, ["1", "2", "1 other meta"]),
        (5, {"keys": ["k"]}, ["1", "1 other meta"]),
        (6, {"fields": ["n"]}, ["1", "2"]),
    ],
)
def test_policies(raw_friendly, strategy, names, wanted):
    """Strict, datagram, key grouped, unique key and unique field: for what is stored, and for what comes."""
    made = [
        (1, "x", "1"),
        (2, "x", "2"),
        (1, "y", "1 other meta"),
        (1, "x", "1 again"),
        (2, "x", "2 again"),
    ]
    events = [Event(json.dumps({"n": n}).encode(), meta={"k": k}) for n, k, _ in made]
    publish(raw_friendly, *events)
    policy(raw_friendly, strategy, **names)
    publish(raw_friendly, *events)
    found = [codec.decode_event(row, "t") for row in rows(raw_friendly)]
    shown = [(json.loads(e.data)["n"], dict(e.meta)["k"]) for e in found]
    kinds = {(1, "x"): "1", (2, "x"): "2", (1, "y"): "1 other meta"}
    assert [kinds[key] for key in shown] == wanted
    assert len(rows(raw_friendly, duplicates=True)) == 10
    policy(raw_friendly, 1)
    assert len(rows(raw_friendly)) == 10, "without a policy everything is there again, and whole"
    assert [e.data for e in raw_friendly.node.events("weather")] == [e.data for e in events] * 2


def test_policies_follow_one_another(raw_friendly):
    """An event that was reduced to another comes back whole, though that one was reduced by a later policy."""
    with_key = [Event(b"%d" % (n % 3), meta={"k": str(n % 2)}) for n in range(60)]
    publish(raw_friendly, *with_key)
    for strategy, keys, left in ((3, (), 3), (5, ("k",), 2), (2, (), 6), (4, ("k",), 6), (1, (), 60)):
        policy(raw_friendly, strategy, keys)
        assert len(rows(raw_friendly)) == left
        whole = rows(raw_friendly, duplicates=True)
        assert texts(whole) == [e.data.decode() for e in with_key]
        assert [dict(codec.decode_event(row, "t").meta) for row in whole] == [e.meta for e in with_key]


def test_the_job_of_the_real_server(raw):
    """Strict: what is stored is deduplicated but for the last event, nothing new is, and NONE leaves the marks."""
    publish(raw, *(Event(b"d%d" % n) for n in (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3)))
    assert policy(raw, 3) == PENDING
    assert texts(rows(raw)) == ["d0", "d1", "d2", "d3", "d3"]
    everything = rows(raw, duplicates=True)
    assert texts(everything) == ["d0"] * 3 + ["d1"] * 3 + ["d2"] * 3 + ["d3"] * 3
    assert sum(row.is_duplicate for row in everything) == 7
    assert texts(raw.rows("SELECT * FROM weather OFFSET 3")) == ["d1", "d2", "d3", "d3"]
    publish(raw, Event(b"d0"))
    assert texts(rows(raw))[-1] == "d0"
    policy(raw, 1)
    assert len(rows(raw)) == 6


def test_by_fields_the_real_server_never_ends(raw):
    """Strict: UNIQUE_FIELD leaves a topic with events PENDING, and then nothing can be changed."""
    from ensign_sync.api.v1beta1 import topic_pb2

    publish(raw, Event(b"{}"))
    id = str(ULID(raw.topic_id()))
    wanted = topic_pb2.Deduplication(strategy=6, fields=["a"])
    request = topic_pb2.TopicPolicy(id=id, deduplication_policy=wanted).SerializeToString()
    assert topic_pb2.TopicStatus.FromString(raw(methods.SET_TOPIC_POLICY, request)).state == PENDING
    text = "cannot change a topic that is in the PENDING state"
    assert refusal(raw, methods.SET_TOPIC_POLICY, request) == ("FAILED_PRECONDITION", text)
    text = "cannot archive or destroy a topic that is in the PENDING state"
    archive = messages.delete_topic_request(ULID(id), 1)
    assert refusal(raw, methods.DELETE_TOPIC, archive) == ("FAILED_PRECONDITION", text)
    publish(raw, Event(b"{}"))
    assert len(rows(raw)) == 2


def test_a_policy_on_a_full_disk(tmp_path, monkeypatch, caplog):
    """The topic is PENDING until there is room, and the writer goes on meanwhile."""
    from ensign_sync.node import policies

    monkeypatch.setattr(policies, "RETRY_SECONDS", 0.1)
    with Node(str(tmp_path / "data.db"), topics=["weather"], strict=False) as node, Raw(node) as raw:
        publish(raw, *(Event(b"%d" % (n % 400) + bytes(100)) for n in range(900)))
        connection = node._log._writer
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")  # which is what a full disk is to SQLite
        with node.client() as client:
            client.set_topic_deduplication_policy("weather", "datagram")
        eventually(lambda: "tried again" in caplog.text)
        connection.execute("PRAGMA max_page_count = 1000000")
        (topic,) = node._living.service.log.all_topics()
        eventually(lambda: node._living.service.book.traits(topic.number).status == READY)
        assert len(rows(raw)) == 400
        publish(raw, Event(b"7" + bytes(100)))
        assert len(rows(raw)) == 400


def test_refused_policies(raw):
    """In the words of the real server."""
    from ensign_sync.api.v1beta1 import topic_pb2

    id = str(ULID(raw.topic_id()))

    def attempt(sharding=0, **policy_):
        request = topic_pb2.TopicPolicy(id=id, sharding_strategy=sharding)
        request.deduplication_policy.CopyFrom(topic_pb2.Deduplication(**policy_))
        return refusal(raw, methods.SET_TOPIC_POLICY, request.SerializeToString())

    assert attempt() == ("INVALID_ARGUMENT", "no policies defined to set on topic")
    assert attempt(strategy=5) == ("INVALID_ARGUMENT", "no keys specified for key based hashing")
    assert attempt(strategy=6) == ("INVALID_ARGUMENT", "no fields specified for field based hashing")
    text = "changing the sharding strategy of a topic is currently not supported"
    assert attempt(sharding=2) == ("UNIMPLEMENTED", text)
    raw(methods.DELETE_TOPIC, messages.delete_topic_request(ULID(id), 1))
    assert attempt(strategy=3) == ("FAILED_PRECONDITION", "cannot change policies of an archived topic")
