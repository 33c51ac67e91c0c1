import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.Quotas;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.Watcher.WatcherType;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.cli.SetQuotaCommand;
import org.apache.zookeeper.StatsTrack;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Stat;

/**
 * The official Java client, every operation it has. Usage: JavaClient HOST:PORT. Each check prints "ok NAME"; the
 * first failure ends the program. "restart stop" and "restart kill" on stdout ask the test to restart the server; it
 * answers "done" on stdin.
 */
public class JavaClient {
    static final int WAIT_S = 20;
    static String hosts;
    static int passed;

    /** Events in the order of their arrival. */
    static class Events implements Watcher {
        final BlockingQueue<WatchedEvent> queue = new LinkedBlockingQueue<>();

        @Override
        public void process(WatchedEvent event) {
            if (event.getType() != EventType.None) {
                queue.add(event);
            }
        }

        void expect(EventType type, String path) throws Exception {
            WatchedEvent event = queue.poll(WAIT_S, TimeUnit.SECONDS);
            require(event != null, "no event " + type + " " + path);
            require(event.getType() == type && event.getPath().equals(path), event + " instead of " + type + " " + path);
        }

        void expectNone() {
            require(queue.isEmpty(), "unexpected " + queue);
        }
    }

    interface Check {
        void run(ZooKeeper zk, String root) throws Exception;
    }

    static void require(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    interface Action {
        void run() throws Exception;
    }

    static void fails(KeeperException.Code code, Action action) throws Exception {
        try {
            action.run();
        } catch (KeeperException e) {
            require(e.code() == code, e.code() + " instead of " + code);
            return;
        }
        throw new AssertionError("no " + code);
    }

    static ZooKeeper connect(int timeoutMs, Watcher watcher) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeper(hosts, timeoutMs, event -> {
            if (event.getState() == KeeperState.SyncConnected && event.getType() == EventType.None) {
                connected.countDown();
            }
            watcher.process(event);
        });
        require(connected.await(WAIT_S, TimeUnit.SECONDS), "no connection");
        return zk;
    }

    static ZooKeeper connect() throws Exception {
        return connect(10_000, event -> { });
    }

    static void eventually(String what, java.util.concurrent.Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_S);
        while (!condition.call()) {
            require(System.nanoTime() < deadline, "never: " + what);
            Thread.sleep(20);
        }
    }

    static void restart(String how) throws Exception {
        System.out.println("restart " + how);
        String answer = new BufferedReader(new InputStreamReader(System.in)).readLine();
        require("done".equals(answer), "the test answers " + answer);
    }

    static void check(String name, Check check) throws Exception {
        ZooKeeper zk = connect();
        String root = "/java-" + name.replace(' ', '-');
        zk.create(root, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        check.run(zk, root);
        zk.close();
        passed++;
        System.out.println("ok " + name);
    }

    static String open(ZooKeeper zk, String path, String data) throws Exception {
        return zk.create(path, data == null ? null : data.getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    static void createGetSetDelete(ZooKeeper zk, String root) throws Exception {
        String path = root + "/n";
        Stat made = new Stat();
        zk.create(path, "one".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, made);
        require(made.getCzxid() == made.getMzxid() && made.getPzxid() == made.getCzxid(), "zxids " + made);
        Stat stat = new Stat();
        require(new String(zk.getData(path, false, stat)).equals("one") && stat.equals(made), "same stat");
        require(zk.setData(path, null, 0).getVersion() == 1, "version 1");
        require(zk.getData(path, false, null) == null, "null stays null");
        zk.setData(path, new byte[0], 1);
        require(zk.getData(path, false, null).length == 0, "empty stays empty");
        fails(KeeperException.Code.BADVERSION, () -> zk.setData(path, null, 0));
        fails(KeeperException.Code.NODEEXISTS, () -> open(zk, path, null));
        fails(KeeperException.Code.NONODE, () -> open(zk, root + "/x/y", null));
        require(zk.exists(root + "/x", false) == null, "nothing there");
        open(zk, path + "/c", null);
        fails(KeeperException.Code.NOTEMPTY, () -> zk.delete(path, -1));
        zk.delete(path + "/c", 0);
        zk.delete(path, 2);
        require(zk.getChildren(root, false, stat).isEmpty() && stat.getCversion() == 2, "cversion 2");
    }

    static void sequences(ZooKeeper zk, String root) throws Exception {
        for (int i = 0; i < 3; i++) {
            String name = zk.create(root + "/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL);
            require(name.equals(String.format("%s/s%010d", root, i)), name);
        }
        String name = zk.create(root + "/", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL);
        require(name.equals(root + "/0000000003"), name);
    }

    static void containersAndTtl(ZooKeeper zk, String root) throws Exception {
        zk.create(root + "/box", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER);
        zk.create(root + "/empty", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER);
        open(zk, root + "/box/c", null);
        zk.create(root + "/brief", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 100);
        zk.create(root + "/long", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 1_000_000);
        String numbered = zk.create(root + "/t", null, Ids.OPEN_ACL_UNSAFE,
                CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, null, 1_000_000);
        require(numbered.equals(root + "/t0000000004"), numbered);
        require(zk.exists(root + "/long", false).getEphemeralOwner() == 0, "the owner marker is hidden");
        zk.delete(root + "/box/c", -1);
        eventually("the reaper takes /box and /brief", () ->
            zk.exists(root + "/box", false) == null && zk.exists(root + "/brief", false) == null);
        require(zk.exists(root + "/long", false) != null, "not yet");
        require(zk.exists(root + "/empty", false) != null, "a container that never had a child stays");
    }

    static void multi(ZooKeeper zk, String root) throws Exception {
        List<OpResult> results = zk.multi(Arrays.asList(
            Op.create(root + "/a", "1".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.create(root + "/a/b", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL),
            Op.create(root + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
            Op.create(root + "/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 100_000),
            Op.setData(root + "/a", "2".getBytes(), 0),
            Op.check(root + "/a", 1),
            Op.delete(root + "/a/b", 0)));
        require(((OpResult.CreateResult) results.get(0)).getPath().equals(root + "/a"), "path");
        require(((OpResult.SetDataResult) results.get(4)).getStat().getVersion() == 1, "version");
        require(results.get(2).getType() == ZooDefs.OpCode.create2, "containers answer as create2");
        require(results.get(6) instanceof OpResult.DeleteResult, "delete");
        Stat a = zk.exists(root + "/a", false);
        require(a.getMzxid() == zk.exists(root + "/t", false).getCzxid(), "one zxid");
        try {
            zk.multi(Arrays.asList(Op.setData(root + "/a", null, 1), Op.check(root + "/none", 0), Op.delete(root + "/a", -1)));
            throw new AssertionError("it must fail");
        } catch (KeeperException e) {
            List<Integer> codes = new ArrayList<>();
            e.getResults().forEach(r -> codes.add(((OpResult.ErrorResult) r).getErr()));
            require(codes.equals(Arrays.asList(0, -101, -2)), codes.toString());
        }
        require(zk.exists(root + "/a", false).equals(a), "nothing happened");
        require(zk.multi(Collections.emptyList()).isEmpty(), "an empty one");
    }

    static void multiRead(ZooKeeper zk, String root) throws Exception {
        open(zk, root + "/a", "data");
        List<OpResult> results = zk.multi(Arrays.asList(
            Op.getData(root + "/a"), Op.getChildren(root), Op.getData(root + "/none")));
        require(new String(((OpResult.GetDataResult) results.get(0)).getData()).equals("data"), "data");
        require(((OpResult.GetChildrenResult) results.get(1)).getChildren().equals(Arrays.asList("a")), "children");
        require(((OpResult.ErrorResult) results.get(2)).getErr() == -101, "no node");
    }

    static void oneShotWatches(ZooKeeper zk, String root) throws Exception {
        String path = root + "/w";
        Events exists = new Events(), data = new Events(), children = new Events();
        ZooKeeper other = connect();
        zk.exists(path, exists);
        open(other, path, null);
        exists.expect(EventType.NodeCreated, path);
        zk.getData(path, data, null);
        zk.getChildren(path, children);
        other.setData(path, null, -1);
        other.setData(path, null, -1);
        data.expect(EventType.NodeDataChanged, path);
        open(other, path + "/c", null);
        children.expect(EventType.NodeChildrenChanged, path);
        other.delete(path + "/c", -1);
        zk.getData(path, data, null);
        zk.getChildren(path, children);
        other.delete(path, -1);
        data.expect(EventType.NodeDeleted, path);
        children.expect(EventType.NodeDeleted, path);
        exists.expectNone();
        other.close();
    }

    static void persistentWatches(ZooKeeper zk, String root) throws Exception {
        String path = root + "/p";
        Events here = new Events(), below = new Events();
        zk.addWatch(path, here, AddWatchMode.PERSISTENT);
        zk.addWatch(root, below, AddWatchMode.PERSISTENT_RECURSIVE);
        ZooKeeper other = connect();
        for (int i = 0; i < 2; i++) {
            open(other, path, null);
            open(other, path + "/c", null);
            other.setData(path + "/c", null, -1);
            other.delete(path + "/c", -1);
            other.delete(path, -1);
            here.expect(EventType.NodeCreated, path);
            here.expect(EventType.NodeChildrenChanged, path);
            here.expect(EventType.NodeChildrenChanged, path);
            here.expect(EventType.NodeDeleted, path);
            below.expect(EventType.NodeCreated, path);
            below.expect(EventType.NodeCreated, path + "/c");
            below.expect(EventType.NodeDataChanged, path + "/c");
            below.expect(EventType.NodeDeleted, path + "/c");
            below.expect(EventType.NodeDeleted, path);
        }
        zk.removeWatches(path, here, WatcherType.Persistent, false);
        here.expect(EventType.PersistentWatchRemoved, path);
        open(other, path, null);
        below.expect(EventType.NodeCreated, path);
        here.expectNone();
        zk.removeAllWatches(root, WatcherType.PersistentRecursive, false);
        below.expect(EventType.PersistentWatchRemoved, root);
        other.close();
    }

    static void removeWatches(ZooKeeper zk, String root) throws Exception {
        Events data = new Events(), children = new Events();
        zk.getData(root, data, null);
        zk.getChildren(root, children);
        zk.removeWatches(root, data, WatcherType.Data, false);
        data.expect(EventType.DataWatchRemoved, root);
        fails(KeeperException.Code.NOWATCHER, () -> zk.removeWatches(root, data, WatcherType.Data, false));
        zk.setData(root, null, -1);
        open(zk, root + "/c", null);
        children.expect(EventType.NodeChildrenChanged, root);
        data.expectNone();
        zk.getChildren(root, children);
        zk.removeAllWatches(root, WatcherType.Any, false);
        children.expect(EventType.ChildWatchRemoved, root);
    }

    static void accessControl(ZooKeeper zk, String root) throws Exception {
        ZooKeeper kim = connect();
        kim.addAuthInfo("digest", "kim:pass".getBytes());
        kim.create(root + "/mine", "x".getBytes(), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        zk.create(root + "/read", null, Ids.READ_ACL_UNSAFE, CreateMode.PERSISTENT);
        fails(KeeperException.Code.NOAUTH, () -> zk.getData(root + "/mine", false, null));
        fails(KeeperException.Code.NOAUTH, () -> zk.getChildren(root + "/mine", false));
        fails(KeeperException.Code.NOAUTH, () -> zk.setData(root + "/read", null, -1));
        fails(KeeperException.Code.NOAUTH, () -> open(zk, root + "/read/x", null));
        fails(KeeperException.Code.INVALIDACL, () -> zk.create(root + "/x", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        Stat stat = new Stat();
        List<ACL> acl = kim.getACL(root + "/mine", stat);
        require(acl.size() == 1 && acl.get(0).getId().getScheme().equals("digest"), acl.toString());
        require(acl.get(0).getId().getId().startsWith("kim:"), acl.toString());
        fails(KeeperException.Code.BADVERSION, () -> kim.setACL(root + "/mine", Ids.READ_ACL_UNSAFE, 5));
        require(kim.setACL(root + "/mine", Ids.OPEN_ACL_UNSAFE, 0).getAversion() == 1, "aversion 1");
        require(new String(zk.getData(root + "/mine", false, null)).equals("x"), "open now");
        kim.close();
    }

    static void whoAmI(ZooKeeper zk, String root) throws Exception {
        zk.addAuthInfo("digest", "kim:pass".getBytes());
        HashSet<String> identities = new HashSet<>();
        zk.whoAmI().forEach(id -> identities.add(id.getAuthScheme() + ":" + id.getUser()));
        require(identities.equals(new HashSet<>(Arrays.asList("ip:127.0.0.1", "digest:kim"))), identities.toString());
    }

    static void superUser(ZooKeeper zk, String root) throws Exception {
        ZooKeeper kim = connect();
        kim.addAuthInfo("digest", "kim:pass".getBytes());
        kim.create(root + "/mine", "x".getBytes(), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        kim.close();
        zk.addAuthInfo("digest", "super:secret".getBytes());
        require(new String(zk.getData(root + "/mine", false, null)).equals("x"), "super reads everything");
        zk.delete(root + "/mine", -1);
    }

    static void ephemeralLists(ZooKeeper zk, String root) throws Exception {
        zk.create(root + "/e1", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        zk.create(root + "/e2", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        open(zk, root + "/p", null);
        require(new HashSet<>(zk.getEphemerals(root)).equals(new HashSet<>(Arrays.asList(root + "/e1", root + "/e2"))), "two");
        require(zk.getEphemerals(root + "/e1").equals(Arrays.asList(root + "/e1")), "one");
        require(zk.getEphemerals("/none").isEmpty(), "none");
        require(zk.getAllChildrenNumber(root) == 3, "three below");
        fails(KeeperException.Code.NOCHILDRENFOREPHEMERALS, () -> open(zk, root + "/e1/c", null));
    }

    static void syncAndAsynchronousOrder(ZooKeeper zk, String root) throws Exception {
        int count = 1000;
        BlockingQueue<Integer> order = new LinkedBlockingQueue<>();
        for (int i = 0; i < count; i++) {
            int number = i;
            zk.create(root + "/n" + i, new byte[100], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT,
                (rc, path, context, name) -> order.add(rc == 0 ? number : -1), null);
        }
        CountDownLatch synced = new CountDownLatch(1);
        AtomicInteger code = new AtomicInteger(-1);
        zk.sync(root, (rc, path, context) -> { code.set(rc); synced.countDown(); }, null);
        require(synced.await(WAIT_S, TimeUnit.SECONDS) && code.get() == 0, "sync");
        require(order.size() == count, "everything is answered before the sync");
        for (int i = 0; i < count; i++) {
            require(order.take() == i, "in order");
        }
        require(zk.getChildren(root, false).size() == count, "all there");
    }

    static void quotas(ZooKeeper zk, String root) throws Exception {
        String top = root + "/q";
        open(zk, top, "0123456789");
        StatsTrack limits = new StatsTrack();
        limits.setCount(-1);
        limits.setBytes(-1);
        limits.setCountHardLimit(3);
        limits.setByteHardLimit(40);
        require(SetQuotaCommand.createQuota(zk, top, limits), "a quota");
        StatsTrack used = new StatsTrack(zk.getData(Quotas.statPath(top), false, null));
        require(used.getCount() == 1 && used.getBytes() == 10, used.toString());
        open(zk, top + "/a", "0123456789");
        open(zk, top + "/b", "0123456789");
        fails(KeeperException.Code.QUOTAEXCEEDED, () -> open(zk, top + "/c", null));
        fails(KeeperException.Code.QUOTAEXCEEDED, () -> zk.setData(top + "/a", new byte[21], -1));
        zk.setData(top + "/a", new byte[20], -1);
        used = new StatsTrack(zk.getData(Quotas.statPath(top), false, null));
        require(used.getCount() == 3 && used.getBytes() == 40, used.toString());
    }

    static void badPathsAndArguments(ZooKeeper zk, String root) throws Exception {
        fails(KeeperException.Code.BADARGUMENTS, () -> zk.delete("/zookeeper", -1));
        fails(KeeperException.Code.INVALIDACL, () ->
            zk.create(root + "/x", null, Arrays.asList(new ACL(31, new org.apache.zookeeper.data.Id("no", "x"))), CreateMode.PERSISTENT));
    }

    static void reconfigIsRefused(ZooKeeper zk, String root) throws Exception {
        try (ZooKeeperAdmin admin = new ZooKeeperAdmin(hosts, 10_000, event -> { })) {
            fails(KeeperException.Code.RECONFIGDISABLED, () -> admin.reconfigure(null, "1", null, -1, null));
            require(new String(zk.getConfig(false, null)).isEmpty(), "a lone server has no configuration");
        }
    }

    static void bigData(ZooKeeper zk, String root) throws Exception {
        byte[] data = new byte[1_000_000];
        new java.util.Random(1).nextBytes(data);
        zk.create(root + "/big", data, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        require(Arrays.equals(zk.getData(root + "/big", false, null), data), "a megabyte");
        try {
            zk.setData(root + "/big", new byte[1_048_576], -1);
            throw new AssertionError("more than jute.maxbuffer");
        } catch (KeeperException e) {
            require(e.code() == KeeperException.Code.CONNECTIONLOSS, e.code().toString());
        }
        // The client may not have noticed yet that its connection is gone.
        eventually("reconnected, and nothing written", () -> {
            try {
                return zk.exists(root + "/big", false).getVersion() == 0;
            } catch (KeeperException.ConnectionLossException e) {
                return false;
            }
        });
    }

    static void expiry(ZooKeeper zk, String root) throws Exception {
        Events gone = new Events();
        ZooKeeper other = connect(1000, event -> { });
        require(other.getSessionTimeout() == 1000, "timeout " + other.getSessionTimeout());
        other.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        zk.exists(root + "/e", gone);
        // The connection dies and nobody comes back for the session.
        CountDownLatch expired = new CountDownLatch(1);
        other.getTestable().injectSessionExpiration();
        long id = other.getSessionId();
        byte[] password = other.getSessionPasswd();
        other.close(0);
        gone.expect(EventType.NodeDeleted, root + "/e");
        ZooKeeper late = new ZooKeeper(hosts, 1000, event -> {
            if (event.getState() == KeeperState.Expired) {
                expired.countDown();
            }
        }, id, password);
        require(expired.await(WAIT_S, TimeUnit.SECONDS), "the session is gone");
        late.close();
    }

    static void timeoutsAreNegotiated(ZooKeeper zk, String root) throws Exception {
        try (ZooKeeper low = connect(600, event -> { }); ZooKeeper high = connect(10_000_000, event -> { })) {
            require(low.getSessionTimeout() == 1000, "two ticks, not " + low.getSessionTimeout());
            require(high.getSessionTimeout() == 10_000, "twenty ticks, not " + high.getSessionTimeout());
        }
    }

    static void sessionIsTakenOver(ZooKeeper zk, String root) throws Exception {
        ZooKeeper first = connect();
        first.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper second = new ZooKeeper(hosts, 10_000, event -> {
            if (event.getState() == KeeperState.SyncConnected) {
                connected.countDown();
            }
        }, first.getSessionId(), first.getSessionPasswd());
        require(connected.await(WAIT_S, TimeUnit.SECONDS), "taken over");
        require(second.exists(root + "/e", false).getEphemeralOwner() == second.getSessionId(), "same session");
        second.close();
        eventually("the ephemeral goes", () -> zk.exists(root + "/e", false) == null);
        first.close(0);
    }

    /** Watches of all kinds, auth and ephemerals come back after a restart, by setWatches and setWatches2. */
    static void survives(ZooKeeper zk, String root, String how) throws Exception {
        Events data = new Events(), exists = new Events(), children = new Events(), deep = new Events(), kept = new Events();
        zk.addAuthInfo("digest", "kim:pass".getBytes());
        zk.create(root + "/secret", "s".getBytes(), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        zk.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        open(zk, root + "/d", null);
        open(zk, root + "/kept", null);
        zk.getData(root + "/d", data, null);
        zk.exists(root + "/later", exists);
        zk.getChildren(root, children);
        zk.getData(root + "/kept", kept, null);
        zk.addWatch(root + "/d", deep, AddWatchMode.PERSISTENT_RECURSIVE);
        long session = zk.getSessionId();
        restart(how);
        // Another client is usually there first: what it changes is missed by the connection, not by the session.
        ZooKeeper other = connect();
        other.setData(root + "/d", "new".getBytes(), -1);
        open(other, root + "/later", null);
        data.expect(EventType.NodeDataChanged, root + "/d");
        exists.expect(EventType.NodeCreated, root + "/later");
        children.expect(EventType.NodeChildrenChanged, root);
        eventually("connected", () -> zk.getState().isConnected());
        require(zk.getSessionId() == session, "same session");
        require(zk.exists(root + "/e", false).getEphemeralOwner() == session, "the ephemeral stays");
        require(new String(zk.getData(root + "/secret", false, null)).equals("s"), "auth is sent again");
        deep.queue.clear();
        open(other, root + "/d/x", null);
        deep.expect(EventType.NodeCreated, root + "/d/x");
        kept.expectNone();
        other.setData(root + "/kept", null, -1);
        kept.expect(EventType.NodeDataChanged, root + "/kept");
        other.close();
    }

    public static void main(String[] arguments) throws Exception {
        hosts = arguments[0];
        check("create get set delete", JavaClient::createGetSetDelete);
        check("sequences", JavaClient::sequences);
        check("multi", JavaClient::multi);
        check("multiRead", JavaClient::multiRead);
        check("one-shot watches", JavaClient::oneShotWatches);
        check("persistent watches", JavaClient::persistentWatches);
        check("remove watches", JavaClient::removeWatches);
        check("access control", JavaClient::accessControl);
        check("whoAmI", JavaClient::whoAmI);
        check("super user", JavaClient::superUser);
        check("ephemeral lists", JavaClient::ephemeralLists);
        check("sync and asynchronous order", JavaClient::syncAndAsynchronousOrder);
        check("quotas", JavaClient::quotas);
        check("bad paths and arguments", JavaClient::badPathsAndArguments);
        check("reconfig is refused", JavaClient::reconfigIsRefused);
        check("big data", JavaClient::bigData);
        check("timeouts are negotiated", JavaClient::timeoutsAreNegotiated);
        check("session is taken over", JavaClient::sessionIsTakenOver);
        check("expiry", JavaClient::expiry);
        check("containers and TTL", JavaClient::containersAndTtl);
        check("survives stop", (zk, root) -> survives(zk, root, "stop"));
        check("survives kill", (zk, root) -> survives(zk, root, "kill"));
        System.out.println("passed " + passed);
        System.exit(0);
    }
}
