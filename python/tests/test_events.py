"""What is made of a node's admin port: its status, its events, Django's signals."""

import queue
from contextlib import closing

import pytest
from django.core.signals import request_started

import tests.guestbook  # noqa: F401
from litepilot.admin import Admin, AdminError
from litepilot.django import following
from litepilot.django.signals import primary_changed, split_brain_detected
from litepilot.watch import Watch
from tests.admin_port import AdminPort

LONG_AGO, LATER = "2001-01-01T00:00:00Z", "2101-01-01T00:00:00.5Z"
# What has not happened by then never will.
DEADLINE = 20


@pytest.fixture
def port():
    with closing(AdminPort()) as port:
        yield port


@pytest.fixture
def told():
    return queue.Queue()


@pytest.fixture
def watch(port, told):
    watch = Watch(Admin(port.url), told.put)
    watch.start()
    assert port.followed.acquire(timeout=DEADLINE)
    yield watch
    watch.stop()
    port.hang_up()
    watch.join(DEADLINE)
    assert not watch.is_alive()


def kinds(told, count):
    return [told.get(timeout=DEADLINE).kind for _ in range(count)]


def test_the_status(port):
    assert Admin(port.url).status() == port.status


def test_a_node_that_is_not_there(port):
    port.close()
    with pytest.raises(AdminError, match="cannot be read"):
        Admin(port.url).status()


def test_an_address_that_is_none():
    for url in ("127.0.0.1:9180", "ftp://x", "http://"):
        with pytest.raises(ValueError, match="admin port"):
            Admin(url)


def test_what_happened_before_is_not_told(port, told):
    port.tell("primary-changed", "long ago", LONG_AGO)
    watch = Watch(Admin(port.url), told.put)
    watch.start()
    assert port.followed.acquire(timeout=DEADLINE)
    port.tell("quorum", "now", LATER)
    assert kinds(told, 1) == ["quorum"]
    watch.stop()
    port.hang_up()


def test_each_event_is_told_once_through_a_restart(port, told, watch):
    port.tell("primary", "one", LATER)
    assert kinds(told, 1) == ["primary"]
    port.hang_up()
    assert port.followed.acquire(timeout=DEADLINE)
    port.tell("no-primary", "two", LATER)
    assert kinds(told, 1) == ["no-primary"], "it was told one again, and passed that over"


def test_a_receiver_that_fails_ends_nothing(port):
    heard = queue.Queue()

    def fail(event):
        heard.put(event)
        raise RuntimeError(event.kind)

    watch = Watch(Admin(port.url), fail)
    watch.start()
    assert port.followed.acquire(timeout=DEADLINE)
    for kind in ("a", "b"):
        port.tell(kind, "", LATER)
    assert kinds(heard, 2) == ["a", "b"]
    watch.stop()
    port.hang_up()


@pytest.fixture
def signals(port, settings_of):
    """The signals that come, from the first request on."""
    settings_of(LITEFS={"CONFIG": {"admin": {"listen": port.url.removeprefix("http://")}}})
    came = queue.Queue()

    def changed(**told):
        came.put(("changed", told["primary"], told["epoch"], told["text"]))

    def split(**told):
        came.put(("split", told["text"]))

    primary_changed.connect(changed)
    split_brain_detected.connect(split)
    request_started.send(None)
    assert port.followed.acquire(timeout=DEADLINE)
    yield came
    primary_changed.disconnect(changed)
    split_brain_detected.disconnect(split)
    following.stop()


def test_signals_from_the_first_request_on(port, signals):
    port.tell("app", "up", LATER)
    port.tell("split-brain", "two nodes", LATER)
    assert signals.get(timeout=DEADLINE) == ("split", "two nodes")
    assert following.split_brain()
    port.tell("primary-changed", "node-2 is primary in epoch 3", LATER)
    assert signals.get(timeout=DEADLINE) == ("changed", "node-2", 3, "node-2 is primary in epoch 3")
    assert not following.split_brain()
    request_started.send(None)
    assert not port.followed.acquire(blocking=False), "one stream for each process"


def test_a_process_without_receivers_follows_nothing(port, settings_of):
    settings_of(LITEFS={"CONFIG": {"admin": {"listen": port.url.removeprefix("http://")}}})
    request_started.send(None)
    assert following._running is None
