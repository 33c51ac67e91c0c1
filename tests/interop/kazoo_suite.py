"""What a Python program does with ZooKeeper, through the kazoo client.

Usage: kazoo_suite.py HOST:PORT. Each check prints `ok NAME`; the first failure ends the program with its traceback.
Lines `restart stop` and `restart kill` on stdout ask the test to restart the server; it answers `done` on stdin.
"""

import logging
import sys
import threading
import time
import uuid

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    InvalidACLError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.protocol.states import EventType
from kazoo.recipe.watchers import ChildrenWatch, DataWatch
from kazoo.security import ACL, CREATOR_ALL_ACL, Permissions, make_acl, make_digest_acl

HOSTS = sys.argv[1]
WAIT = 20
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def client(**options):
    zk = KazooClient(hosts=HOSTS, timeout=10, **options)
    zk.start(timeout=WAIT)
    return zk


def eventually(condition, what):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def raises(error, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except error:
        return
    raise AssertionError("%s expected of %s%r" % (error, function.__name__, arguments))


def restart(how):
    print("restart", how, flush=True)
    assert sys.stdin.readline().strip() == "done"


class Recorder:
    """Collects watch events."""

    def __init__(self):
        self.events = []
        self.some = threading.Event()

    def __call__(self, event):
        self.events.append(event)
        self.some.set()

    def take(self):
        assert self.some.wait(WAIT), "no event"
        self.some.clear()
        return self.events[-1]


@check
def create_get_set_delete(zk, root):
    path = root + "/node"
    assert zk.create(path, b"one") == path
    data, stat = zk.get(path)
    assert (data, stat.version, stat.numChildren, stat.dataLength) == (b"one", 0, 0, 3)
    assert stat.czxid == stat.mzxid == stat.pzxid > 0
    assert abs(stat.created - time.time()) < 600
    after = zk.set(path, b"two", version=0)
    assert after.version == 1 and after.mzxid > after.czxid
    raises(BadVersionError, zk.set, path, b"three", version=0)
    raises(BadVersionError, zk.delete, path, version=0)
    raises(NodeExistsError, zk.create, path, b"")
    raises(NoNodeError, zk.create, root + "/no/parent", b"")
    raises(NoNodeError, zk.get, root + "/nothing")
    assert zk.exists(root + "/nothing") is None
    zk.create(path + "/child", b"")
    raises(NotEmptyError, zk.delete, path)
    zk.delete(path, recursive=True)
    assert zk.exists(path) is None


@check
def create_with_stat_and_parents(zk, root):
    path, stat = zk.create(root + "/a/b/c", b"x", makepath=True, include_data=True)
    assert path == root + "/a/b/c" and stat.version == 0 and stat.dataLength == 1
    zk.ensure_path(root + "/d/e")
    children, stat = zk.get_children(root, include_data=True)
    assert sorted(children) == ["a", "d"] and stat.numChildren == 2 and stat.cversion == 2


@check
def sequence_numbers(zk, root):
    made = [zk.create(root + "/s-", b"", sequence=True) for _ in range(3)]
    assert made == [root + "/s-%010d" % n for n in range(3)]
    zk.create(root + "/other", b"")
    assert zk.create(root + "/s-", b"", sequence=True) == root + "/s-0000000004"
    mixed = zk.create(root + "/e-", b"", sequence=True, ephemeral=True)
    assert mixed == root + "/e-0000000005"


@check
def ephemerals_end_with_their_session(zk, root):
    other = client()
    other.create(root + "/mine", b"", ephemeral=True)
    assert zk.exists(root + "/mine").ephemeralOwner == other.client_id[0]
    raises(NoChildrenForEphemeralsError, other.create, root + "/mine/child", b"")
    gone = Recorder()
    zk.exists(root + "/mine", watch=gone)
    other.stop()
    assert gone.take().type == EventType.DELETED
    assert zk.exists(root + "/mine") is None
    other.close()


@check
def data_of_every_size(zk, root):
    for size in (0, 1, 511, 512, 4096, 100_000, 1_000_000):
        data = bytes(i % 251 for i in range(size))
        zk.create(root + "/d%d" % size, data)
        assert zk.get(root + "/d%d" % size)[0] == data, size


@check
def unicode_names(zk, root):
    for name in ("été", "日本語", "with space", "%41"):
        zk.create(root + "/" + name, name.encode())
        assert zk.get(root + "/" + name)[0] == name.encode()
    assert sorted(zk.get_children(root)) == sorted(["été", "日本語", "with space", "%41"])


@check
def access_control(zk, root):
    zk.create(root + "/private", b"s", acl=[make_digest_acl("kim", "pass", all=True)])
    zk.create(root + "/public-read", b"r", acl=[make_acl("world", "anyone", read=True)])
    raises(NoAuthError, zk.get, root + "/private")
    raises(NoAuthError, zk.set, root + "/public-read", b"")
    assert zk.get(root + "/public-read")[0] == b"r"
    kim = client(auth_data=[("digest", "kim:pass")])
    assert kim.get(root + "/private")[0] == b"s"
    acls, stat = kim.get_acls(root + "/private")
    assert acls == [make_digest_acl("kim", "pass", all=True)] and stat.aversion == 0
    kim.create(root + "/creator", b"", acl=CREATOR_ALL_ACL)
    raises(NoAuthError, zk.get, root + "/creator")
    raises(NoAuthError, zk.get_acls, root + "/creator")
    kim.set_acls(root + "/private", [ACL(Permissions.READ, make_acl("world", "anyone").id)], version=0)
    assert zk.get(root + "/private")[0] == b"s"
    raises(InvalidACLError, zk.create, root + "/nobody", b"", acl=CREATOR_ALL_ACL)
    late = client()
    raises(NoAuthError, late.get, root + "/creator")
    late.add_auth("digest", "kim:pass")
    assert late.get(root + "/creator")[0] == b""
    late.stop()
    kim.stop()


@check
def transactions(zk, root):
    zk.create(root + "/counter", b"0")
    good = zk.transaction()
    good.check(root + "/counter", 0)
    good.create(root + "/made", b"m")
    good.set_data(root + "/counter", b"1")
    good.create(root + "/made/child-", b"", sequence=True)
    good.delete(root + "/made/child-0000000000")
    results = good.commit()
    assert results[0] is True and results[1] == root + "/made" and results[2].version == 1
    assert results[3] == root + "/made/child-0000000000" and results[4] is True
    made, counter = zk.exists(root + "/made"), zk.exists(root + "/counter")
    assert made.czxid == counter.mzxid, "one zxid for all"
    bad = zk.transaction()
    bad.create(root + "/not-made", b"")
    bad.check(root + "/counter", 7)
    bad.delete(root + "/made")
    results = bad.commit()
    assert isinstance(results[0], RolledBackError), results
    assert isinstance(results[1], BadVersionError), results
    assert isinstance(results[2], RuntimeInconsistency), results
    assert zk.exists(root + "/not-made") is None and zk.exists(root + "/made")


@check
def one_shot_watches(zk, root):
    other, path = client(), root + "/watched"
    created, changed, children = Recorder(), Recorder(), Recorder()
    assert zk.exists(path, watch=created) is None
    other.create(path, b"")
    assert created.take().type == EventType.CREATED
    zk.get(path, watch=changed)
    zk.get_children(path, watch=children)
    other.set(path, b"1")
    other.set(path, b"2")
    assert (changed.take().type, changed.events[0].path) == (EventType.CHANGED, path)
    other.create(path + "/c", b"")
    assert children.take().type == EventType.CHILD
    other.create(path + "/d", b"")
    zk.sync(path)
    assert len(changed.events) == len(children.events) == 1
    other.stop()


@check
def data_watch_and_children_watch(zk, root):
    seen, lists = [], []
    DataWatch(zk, root + "/d", lambda data, stat: seen.append(data))
    zk.create(root + "/d", b"1")
    eventually(lambda: seen[-1] == b"1", "first data")
    zk.set(root + "/d", b"2")
    eventually(lambda: seen[-1] == b"2", "second data")
    zk.delete(root + "/d")
    eventually(lambda: seen[-1] is None, "no data")
    ChildrenWatch(zk, root, lambda names: lists.append(sorted(names)))
    zk.create(root + "/x", b"")
    eventually(lambda: lists[-1] == ["x"], "a child")
    zk.delete(root + "/x")
    eventually(lambda: lists[-1] == [], "no child")


@check
def locks(zk, root):
    other, order = client(), []
    first, second = zk.Lock(root + "/lock", "first"), other.Lock(root + "/lock", "second")
    first.acquire(timeout=WAIT)
    assert not second.acquire(blocking=False)
    waiter = threading.Thread(target=lambda: (second.acquire(timeout=WAIT), order.append("second")))
    waiter.start()
    eventually(lambda: len(first.contenders()) == 2, "two contenders")
    assert first.contenders() == ["first", "second"] and order == []
    first.release()
    waiter.join(WAIT)
    assert order == ["second"] and second.is_acquired
    # A holder that vanishes frees the lock.
    other.stop()
    assert first.acquire(timeout=WAIT)
    first.release()
    semaphore = zk.Semaphore(root + "/semaphore", max_leases=2)
    with semaphore:
        assert len(semaphore.lease_holders()) == 1


@check
def election(zk, root):
    other, led = client(), []
    elections = [(zk.Election(root + "/e", "a"), "a"), (other.Election(root + "/e", "b"), "b")]
    threads = [threading.Thread(target=e.run, args=(led.append, name)) for e, name in elections]
    [t.start() for t in threads]
    [t.join(WAIT) for t in threads]
    assert sorted(led) == ["a", "b"]
    other.stop()


@check
def queues_counters_parties_barriers(zk, root):
    queue = zk.Queue(root + "/queue")
    [queue.put(b"%d" % n, priority=100 - n) for n in range(3)]
    assert len(queue) == 3 and [queue.get() for _ in range(3)] == [b"2", b"1", b"0"] and queue.get() is None
    locking = zk.LockingQueue(root + "/locking")
    locking.put_all([b"x", b"y"])
    assert locking.get(WAIT) == b"x" and locking.consume() and locking.get(WAIT) == b"y" and locking.consume()
    counter = zk.Counter(root + "/counter", default=5)
    counter += 3
    counter -= 1
    assert counter.value == 7
    other = client()
    mine, theirs = zk.Party(root + "/party", "me"), other.Party(root + "/party", "them")
    mine.join()
    theirs.join()
    assert sorted(mine) == ["me", "them"]
    other.stop()
    eventually(lambda: sorted(mine) == ["me"], "one left")
    barrier = zk.Barrier(root + "/barrier")
    barrier.create()
    threading.Timer(0.1, barrier.remove).start()
    assert barrier.wait(WAIT)


@check
def chroot(zk, root):
    inside = KazooClient(hosts=HOSTS + root + "/jail", timeout=10)
    inside.start(timeout=WAIT)
    zk.ensure_path(root + "/jail")
    seen = Recorder()
    inside.exists("/in", watch=seen)
    zk.create(root + "/jail/in", b"")
    assert seen.take().path == "/in"
    assert inside.get_children("/") == ["in"]
    inside.stop()


@check
def many_requests_in_flight(zk, root):
    made = [zk.create_async(root + "/n", b"%d" % n, sequence=True) for n in range(500)]
    names = [result.get(timeout=WAIT) for result in made]
    assert names == [root + "/n%010d" % n for n in range(500)], "answers in request order"
    reads = [zk.get_async(name) for name in names]
    assert [r.get(timeout=WAIT)[0] for r in reads] == [b"%d" % n for n in range(500)]


@check
def four_letter_words(zk, root):
    assert zk.server_version()[:2] == (3, 9)
    assert b"imok" in zk.command(b"ruok").encode()
    assert "Mode: standalone" in zk.command(b"stat")
    assert "zk_znode_count\t" in zk.command(b"mntr")
    assert "zk_version\t3.9" in zk.command(b"mntr")
    assert zk.command(b"isro") == "rw"


def survive(how):
    """A session, its ephemerals and its watches outlive a restart of the server."""

    def run(zk, root):
        states, seen, lists = [], [], []
        zk.add_listener(states.append)
        zk.create(root + "/stays", b"before")
        zk.create(root + "/mine", b"", ephemeral=True)
        DataWatch(zk, root + "/stays", lambda data, stat: seen.append(data))
        ChildrenWatch(zk, root, lambda names: lists.append(sorted(names)))
        session = zk.client_id
        restart(how)
        eventually(lambda: zk.state == KazooState.CONNECTED and KazooState.SUSPENDED in states, "reconnect")
        assert zk.client_id == session and KazooState.LOST not in states
        assert zk.retry(zk.get, root + "/stays")[0] == b"before"
        assert zk.retry(zk.exists, root + "/mine").ephemeralOwner == session[0]
        other = client()
        other.set(root + "/stays", b"after")
        other.create(root + "/later", b"")
        eventually(lambda: seen[-1] == b"after", "a data event")
        eventually(lambda: lists[-1] == ["later", "mine", "stays"], "a child event")
        zk.remove_listener(states.append)
        other.stop()

    run.__name__ = "session_survives_" + how
    return run


CHECKS += [survive("stop"), survive("kill")]


def main():
    logging.basicConfig(level=logging.CRITICAL)
    zk = client()
    for function in CHECKS:
        root = "/kazoo-" + uuid.uuid4().hex
        zk.create(root, b"")
        function(zk, root)
        print("ok", function.__name__, flush=True)
    zk.stop()
    print("passed", len(CHECKS), flush=True)


main()
