"""What a Python program lives through when servers of an ensemble die, through the kazoo client.

Usage: failover.py HOST:PORT,HOST:PORT,…. Each check prints `ok NAME`; the first failure ends the program with its traceback.
Lines `ensemble kill PORT`, `ensemble heal` and `ensemble leader` on stdout ask the test to kill a node, to start all that do
not run, and for the leader's port; it answers with one line on stdin.
"""

import logging
import sys
import threading
import time

from kazoo.client import KazooClient, KazooState

HOSTS = sys.argv[1].split(",")
WAIT = 20
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def ensemble(*words):
    print("ensemble", *words, flush=True)
    return sys.stdin.readline().strip()


def eventually(condition, what):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Client(KazooClient):
    """Remembers what became of its connection."""

    def __init__(self, hosts=HOSTS, timeout=10, **options):
        super().__init__(hosts=",".join(hosts), timeout=timeout, **options)
        self.states = []
        self.add_listener(lambda state: self.states.append(state) and None)
        self.start(timeout=WAIT)

    def port(self):
        return self._connection._socket.getpeername()[1]

    def close_all(self):
        self.stop()
        self.close()


@check
def the_session_its_nodes_and_its_watches_move_when_the_connected_node_is_killed():
    zk = Client()
    session = zk.client_id
    zk.create("/moves", b"here", ephemeral=True)
    for name in ("/while-away", "/afterwards"):
        zk.create(name, b"old")
    away, after, children = [], [], []
    zk.DataWatch("/while-away", lambda data, stat: away.append(data))
    zk.DataWatch("/afterwards", lambda data, stat: after.append(data))
    zk.ChildrenWatch("/afterwards", children.append)
    killed = zk.port()
    other = Client([host for host in HOSTS if not host.endswith(str(killed))])
    ensemble("kill", killed)
    other.retry(other.set, "/while-away", b"new")
    eventually(lambda: away == [b"old", b"new"], away)
    eventually(lambda: zk.state == KazooState.CONNECTED, zk.states)
    assert zk.states == [KazooState.CONNECTED, KazooState.SUSPENDED, KazooState.CONNECTED], zk.states
    assert zk.client_id == session and zk.port() != killed
    # kazoo ends plain watches with the connection, and registers those of its recipes anew.
    assert after == [b"old"] and children[-1] == [], (after, children)
    other.retry(other.set, "/afterwards", b"new")
    eventually(lambda: after == [b"old", b"new"], after)
    other.create("/afterwards/child")
    eventually(lambda: children[-1] == ["child"], children)
    assert zk.retry(zk.get, "/moves")[0] == b"here"
    assert zk.get("/moves")[1].ephemeralOwner == session[0]
    ensemble("heal")
    zk.close_all()
    eventually(lambda: other.retry(other.exists, "/moves") is None, "goes with its session")
    other.close_all()


@check
def a_session_expires_while_its_only_node_is_down():
    leader = ensemble("leader")
    followers = [host for host in HOSTS if not host.endswith(leader)]
    zk, other = Client(followers[:1], timeout=1), Client(followers[1:])
    session = zk.client_id
    zk.create("/goes", b"", ephemeral=True)
    ensemble("kill", zk.port())
    eventually(lambda: other.retry(other.exists, "/goes") is None, "the leader expires it")
    ensemble("heal")
    eventually(lambda: zk.states[-1] == KazooState.CONNECTED and len(zk.states) > 1, zk.states)
    assert KazooState.LOST in zk.states, zk.states
    assert zk.client_id[0] != session[0]
    zk.close_all()
    other.close_all()


@check
def a_lock_is_held_across_the_death_of_the_leader():
    leader = ensemble("leader")
    holder = Client(HOSTS)
    waiter = Client(HOSTS)
    lock, got = holder.Lock("/lock", "holder"), threading.Event()
    assert lock.acquire(timeout=WAIT)

    def wait():
        second = waiter.Lock("/lock", "waiter")
        assert second.acquire(timeout=3 * WAIT)
        got.set()
        second.release()

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: len(lock.contenders()) == 2, "both stand in line")
    ensemble("kill", leader)
    eventually(lambda: holder.state == KazooState.CONNECTED and waiter.state == KazooState.CONNECTED, "reconnect")
    assert holder.retry(lock.contenders) == ["holder", "waiter"]
    assert not got.is_set()
    lock.release()
    assert got.wait(WAIT), "released, and nobody gets it"
    thread.join(WAIT)
    assert KazooState.LOST not in holder.states + waiter.states
    ensemble("heal")
    holder.close_all()
    waiter.close_all()


@check
def an_election_has_one_winner_at_a_time_across_the_death_of_the_leader():
    clients = [Client(HOSTS) for _ in range(3)]
    inside, most, wins, may_go = [], [], [], threading.Semaphore(0)

    def lead(name):
        inside.append(name)
        most.append(len(inside))
        wins.append(name)
        assert may_go.acquire(timeout=3 * WAIT)
        inside.remove(name)

    threads = []
    for name, zk in enumerate(clients):
        election = zk.Election("/election", str(name))
        threads.append(threading.Thread(target=election.run, args=(lead, name)))
    for thread in threads:
        thread.start()
    eventually(lambda: len(wins) == 1, "a winner")
    eventually(lambda: len(clients[0].Election("/election").contenders()) == 3, "all stand in line")
    ensemble("kill", ensemble("leader"))
    eventually(lambda: all(zk.state == KazooState.CONNECTED for zk in clients), "reconnect")
    for count in (1, 2, 3):
        eventually(lambda: len(wins) == count, wins)
        may_go.release()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(wins) == [0, 1, 2] and max(most) == 1, (wins, most)
    ensemble("heal")
    for zk in clients:
        zk.close_all()


@check
def a_client_with_a_later_zxid_is_never_taken_back_in_time():
    """Counts through every node while each is killed and comes back."""
    zk = Client()
    zk.create("/count", b"0")
    last = 0
    for _ in HOSTS:
        ensemble("kill", zk.port())
        for _ in range(20):
            value = int(zk.retry(zk.get, "/count")[0])
            assert value >= last, (value, last)
            zk.retry(zk.set, "/count", str(value + 1).encode())
            last = value + 1
        ensemble("heal")
    assert KazooState.LOST not in zk.states
    zk.close_all()


def main():
    logging.basicConfig(level=logging.CRITICAL)
    for function in CHECKS:
        function()
        print("ok", function.__name__, flush=True)
    print("passed", len(CHECKS), flush=True)


main()
