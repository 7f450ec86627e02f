"""A client without any of our client's care: raw calls over real gRPC and HTTP."""

import json
import queue
import threading
import urllib.error
import urllib.request

import grpc
import pytest

from ensign_sync.protocol import frames
from ensign_sync.wire import codec, messages, methods


class Raw:
    """A client without any of our client's care."""

    def __init__(self, node, key=None):
        self.node = node
        self.channel = grpc.insecure_channel(node.endpoint, [("grpc.max_receive_message_length", -1)])
        client_id, client_secret = key or (node.client_id, node.client_secret)
        self.token = self.post("/v1/authenticate", client_id=client_id, client_secret=client_secret)[2]["access_token"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def metadata(self, token):
        return [("authorization", f"Bearer {self.token}")] if token is None else token

    def __call__(self, method, request=b"", token=None):
        return self.channel.unary_unary(method.path)(request, metadata=self.metadata(token), timeout=30)

    def rows(self, query, token=None):
        call = self.channel.unary_stream(methods.ENSQL.path)
        request = messages.query_request(query, None, False)
        return [codec.decode_row(row) for row in call(request, metadata=self.metadata(token), timeout=30)]

    def publish(self, requests, token=None, answers=None):
        """Send requests, half-close once so many replies are there (default: one for each), return all replies."""
        call = self.channel.stream_stream(methods.PUBLISH.path)
        wanted = threading.Semaphore(0)

        def patient():
            yield from requests
            for _ in range(len(requests) if answers is None else answers):
                wanted.acquire(timeout=30)

        replies = []
        try:
            for reply in call(patient(), metadata=self.metadata(token), timeout=30):
                replies.append(codec.decode_publisher_reply(reply))
                wanted.release()
        except grpc.RpcError as error:
            return replies, (error.code().name, error.details())
        finally:
            for _ in range(len(requests) + 1):
                wanted.release()
        return replies, ("OK", "")

    def publisher(self, *topics):
        """Return an open publish stream, and the ids of its topics."""
        stream = RawStream(self, methods.PUBLISH, codec.decode_publisher_reply)
        stream.send(opening(*topics))
        return stream, stream.take().topics

    def subscriber(self, *topics, group=""):
        """Return an open subscribe stream."""
        stream = RawStream(self, methods.SUBSCRIBE, codec.decode_subscribe_reply)
        stream.send(subscription(*topics, group=group))
        assert isinstance(stream.take(), frames.Ready)
        return stream

    def topic_id(self, name="weather"):
        """Return the id of a topic."""
        topics = messages.topics_page_reply(self(methods.LIST_TOPICS)).items
        return next(topic.id.bytes for topic in topics if topic.name == name)

    def post(self, path, _data=None, **body):
        return self.http("POST", path, json.dumps(body).encode() if _data is None else _data)

    def http(self, method, path, data=None):
        request = urllib.request.Request(self.node.auth_url + path, data, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
                return reply.status, reply.headers["Content-Type"], json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], json.loads(error.read())


class RawStream:
    """A stream that a test drives message by message."""

    def __init__(self, raw, method, decode, token=None):
        self._requests = queue.Queue()
        self._decode = decode
        self._replies = queue.Queue()
        self.status = None
        call = raw.channel.stream_stream(method.path)
        self.call = call(iter(self._requests.get, None), metadata=raw.metadata(token), timeout=120)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for reply in self.call:
                self._replies.put(self._decode(reply))
        except grpc.RpcError as error:
            self.status = (error.code().name, error.details())
        else:
            self.status = ("OK", "")
        self._replies.put(None)

    def send(self, *requests):
        """Send messages."""
        for request in requests:
            self._requests.put(request)

    def take(self, timeout=30):
        """Return the next reply; None is the end."""
        return self._replies.get(timeout=timeout)

    def nothing(self, seconds=0.3):
        """Return whether nothing comes for a moment."""
        try:
            return self._replies.get(timeout=seconds) is None and False
        except queue.Empty:
            return True

    def half_close(self):
        """Say that nothing more will be sent."""
        self._requests.put(None)

    def rest(self):
        """Return the replies until the end."""
        replies = list(iter(self.take, None))
        self._thread.join(30)
        return replies

    def cancel(self):
        """Cancel the call, and wait until it is over."""
        self.call.cancel()
        self._requests.put(None)
        self._thread.join(30)


def opening(*topics):
    """Return the first message of a publisher."""
    return codec.encode_publisher_frame(frames.OpenStream("me", topics))


def event(topic_id, local_id=b"1" * 16, payload=b"\x12\x07payload"):
    """Return an event of a publisher."""
    return codec.joined(codec.encode_publisher_frame(frames.Publication(topic_id, local_id, payload)))


def subscription(*topics, group=""):
    """Return the first message of a subscriber."""
    return codec.encode_subscriber_frame(frames.Subscription("me", topics, group))


def refusal(call, *args, **options):
    """Return the status and text with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **options)
    return caught.value.code().name, caught.value.details()
