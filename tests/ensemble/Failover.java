import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryForever;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/**
 * What a Java program lives through when servers of an ensemble die. Usage: Failover HOST:PORT,HOST:PORT,…. Each check
 * prints "ok NAME"; the first failure ends the program. "ensemble kill PORT", "ensemble heal" and "ensemble leader" on
 * stdout ask the test to kill a node, to start all that do not run, and for the leader's port; it answers with one line.
 */
public class Failover {
    static final int WAIT_S = 20;
    static final BufferedReader ANSWERS = new BufferedReader(new InputStreamReader(System.in));
    static String[] hosts;
    static int passed;

    static void require(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    static void ok(String name) {
        passed++;
        System.out.println("ok " + name);
    }

    static String ensemble(Object... words) throws Exception {
        List<String> text = Arrays.stream(words).map(String::valueOf).collect(Collectors.toList());
        System.out.println("ensemble " + String.join(" ", text));
        return ANSWERS.readLine();
    }

    static void eventually(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_S);
        while (!condition.call()) {
            require(System.nanoTime() < deadline, "never: " + what);
            Thread.sleep(10);
        }
    }

    /** Retries what a lost connection interrupts. */
    static <T> T retry(Callable<T> action) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_S);
        while (true) {
            try {
                return action.call();
            } catch (KeeperException.ConnectionLossException e) {
                require(System.nanoTime() < deadline, "never connected: " + e);
                Thread.sleep(10);
            }
        }
    }

    /** A client that remembers what became of its connection, and its events. */
    static class Client implements Watcher {
        final BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        final List<KeeperState> states = new ArrayList<>();
        final Socketed zk;

        Client(String connect, int timeoutMs) throws Exception {
            zk = new Socketed(connect, timeoutMs, this);
            eventually("connected", () -> zk.getState() == ZooKeeper.States.CONNECTED);
        }

        @Override
        public void process(WatchedEvent event) {
            if (event.getType() == EventType.None) {
                synchronized (states) {
                    states.add(event.getState());
                }
            } else {
                events.add(event);
            }
        }

        List<KeeperState> states() {
            synchronized (states) {
                return new ArrayList<>(states);
            }
        }

        void expect(EventType type, String path) throws Exception {
            WatchedEvent event = events.poll(WAIT_S, TimeUnit.SECONDS);
            require(event != null, "no event " + type + " " + path);
            require(event.getType() == type && path.equals(event.getPath()), event + " instead of " + type + " " + path);
        }
    }

    /** Tells where it is connected. */
    static class Socketed extends ZooKeeper {
        Socketed(String connect, int timeoutMs, Watcher watcher) throws Exception {
            super(connect, timeoutMs, watcher);
        }

        int port() {
            return ((InetSocketAddress) testableRemoteSocketAddress()).getPort();
        }
    }

    static String all() {
        return String.join(",", hosts);
    }

    static String without(int port) {
        return Arrays.stream(hosts).filter(h -> !h.endsWith(":" + port)).collect(Collectors.joining(","));
    }

    static void everythingMoves() throws Exception {
        Client client = new Client(all(), 10_000);
        long session = client.zk.getSessionId();
        client.zk.create("/moves", new byte[1], Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        for (String path : new String[] {"/away", "/after", "/tree", "/untouched"}) {
            client.zk.create(path, new byte[1], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        }
        client.zk.getData("/away", true, null);
        client.zk.getData("/after", true, null);
        client.zk.getData("/untouched", true, null);
        client.zk.exists("/made-while-away", true);
        client.zk.addWatch("/tree", AddWatchMode.PERSISTENT_RECURSIVE);
        int killed = client.zk.port();
        Client other = new Client(without(killed), 10_000);
        ensemble("kill", killed);
        retry(() -> other.zk.setData("/away", new byte[2], -1));
        client.expect(EventType.NodeDataChanged, "/away");
        eventually("connected again", () -> client.zk.getState() == ZooKeeper.States.CONNECTED);
        require(client.zk.getSessionId() == session && client.zk.port() != killed, "moved");
        List<KeeperState> expected = Arrays.asList(KeeperState.SyncConnected, KeeperState.Disconnected, KeeperState.SyncConnected);
        require(client.states().equals(expected), client.states().toString());
        retry(() -> other.zk.setData("/after", new byte[2], -1));
        client.expect(EventType.NodeDataChanged, "/after");
        retry(() -> other.zk.create("/made-while-away", new byte[1], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        client.expect(EventType.NodeCreated, "/made-while-away");
        for (String path : new String[] {"/tree/a", "/tree/b"}) {
            retry(() -> other.zk.create(path, new byte[1], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
            client.expect(EventType.NodeCreated, path);
        }
        require(client.zk.exists("/moves", false).getEphemeralOwner() == session, "its node is there");
        require(client.events.isEmpty(), client.events.toString());
        ensemble("heal");
        client.zk.close();
        eventually("it goes with the session", () -> retry(() -> other.zk.exists("/moves", false)) == null);
        other.zk.close();
        ok("everything moves");
    }

    static void expiry() throws Exception {
        String leader = ensemble("leader");
        String[] followers = without(Integer.parseInt(leader)).split(",");
        Client client = new Client(followers[0], 1_000), other = new Client(followers[1], 10_000);
        client.zk.create("/goes", new byte[1], Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        ensemble("kill", client.zk.port());
        eventually("the leader expires it", () -> retry(() -> other.zk.exists("/goes", false)) == null);
        ensemble("heal");
        eventually("the client is told", () -> client.states().contains(KeeperState.Expired));
        require(!client.zk.getState().isAlive(), client.zk.getState().toString());
        other.zk.close();
        ok("expiry");
    }

    static CuratorFramework curator() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(all(), 10_000, 5_000, new RetryForever(50));
        client.start();
        require(client.blockUntilConnected(WAIT_S, TimeUnit.SECONDS), "no connection");
        return client;
    }

    static void recipes() throws Exception {
        CuratorFramework a = curator(), b = curator();
        InterProcessMutex first = new InterProcessMutex(a, "/mutex"), second = new InterProcessMutex(b, "/mutex");
        require(first.acquire(WAIT_S, TimeUnit.SECONDS), "free");
        LeaderLatch one = new LeaderLatch(a, "/latch", "one"), two = new LeaderLatch(b, "/latch", "two");
        one.start();
        require(one.await(WAIT_S, TimeUnit.SECONDS), "alone");
        two.start();
        ensemble("kill", ensemble("leader"));
        require(!second.acquire(500, TimeUnit.MILLISECONDS), "taken, whoever leads");
        first.release();
        require(second.acquire(WAIT_S, TimeUnit.SECONDS), "free again");
        second.release();
        ok("mutex");
        eventually("one winner", () -> one.hasLeadership() != two.hasLeadership());
        (one.hasLeadership() ? one : two).close();
        LeaderLatch left = one.getState() == LeaderLatch.State.CLOSED ? two : one;
        require(left.await(WAIT_S, TimeUnit.SECONDS), "the other takes over");
        ensemble("heal");
        left.close();
        a.close();
        b.close();
        ok("latch");
    }

    public static void main(String[] args) throws Exception {
        hosts = args[0].split(",");
        everythingMoves();
        expiry();
        recipes();
        System.out.println("passed " + passed);
        System.exit(0);
    }
}
