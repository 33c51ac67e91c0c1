import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;

/** Curator's recipes. Usage: Recipes HOST:PORT. Each check prints "ok NAME"; the first failure ends the program. */
public class Recipes {
    static final int WAIT_S = 20;
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

    static CuratorFramework connect(String hosts) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(hosts, new RetryOneTime(100));
        client.start();
        require(client.blockUntilConnected(WAIT_S, TimeUnit.SECONDS), "no connection");
        return client;
    }

    static void mutex(CuratorFramework a, CuratorFramework b) throws Exception {
        InterProcessMutex first = new InterProcessMutex(a, "/mutex"), second = new InterProcessMutex(b, "/mutex");
        require(first.acquire(WAIT_S, TimeUnit.SECONDS), "free");
        require(!second.acquire(200, TimeUnit.MILLISECONDS), "taken");
        first.release();
        require(second.acquire(WAIT_S, TimeUnit.SECONDS), "free again");
        second.release();
        ok("mutex");
    }

    static void readWriteLock(CuratorFramework a, CuratorFramework b) throws Exception {
        InterProcessReadWriteLock first = new InterProcessReadWriteLock(a, "/rw"), second = new InterProcessReadWriteLock(b, "/rw");
        require(first.readLock().acquire(WAIT_S, TimeUnit.SECONDS), "one reader");
        require(second.readLock().acquire(WAIT_S, TimeUnit.SECONDS), "two readers");
        require(!second.writeLock().acquire(200, TimeUnit.MILLISECONDS), "no writer");
        first.readLock().release();
        second.readLock().release();
        require(second.writeLock().acquire(WAIT_S, TimeUnit.SECONDS), "a writer");
        second.writeLock().release();
        ok("read-write lock");
    }

    static void leader(CuratorFramework a, String hosts) throws Exception {
        CuratorFramework other = connect(hosts);
        LeaderLatch first = new LeaderLatch(other, "/leader", "first"), second = new LeaderLatch(a, "/leader", "second");
        first.start();
        require(first.await(WAIT_S, TimeUnit.SECONDS), "first leads");
        second.start();
        require(!second.await(200, TimeUnit.MILLISECONDS), "second waits");
        other.close();
        require(second.await(WAIT_S, TimeUnit.SECONDS), "second leads when first is gone");
        second.close();
        ok("leader latch");
    }

    static void counter(CuratorFramework a, CuratorFramework b) throws Exception {
        DistributedAtomicLong[] counters = {
            new DistributedAtomicLong(a, "/counter", new RetryOneTime(10)),
            new DistributedAtomicLong(b, "/counter", new RetryOneTime(10))};
        for (int i = 0; i < 100; i++) {
            require(counters[i % 2].increment().succeeded(), "increment");
        }
        require(counters[0].get().postValue() == 100, "a hundred");
        ok("atomic long");
    }

    static void cache(CuratorFramework a, CuratorFramework b) throws Exception {
        List<String> seen = new ArrayList<>();
        CountDownLatch all = new CountDownLatch(4);
        CuratorCache cache = CuratorCache.build(a, "/cache");
        cache.listenable().addListener(CuratorCacheListener.builder().forAll((type, old, data) -> {
            synchronized (seen) {
                seen.add(type + " " + (data == null ? old : data).getPath());
            }
            all.countDown();
        }).build());
        cache.start();
        b.create().forPath("/cache");
        b.create().forPath("/cache/x", "1".getBytes());
        Thread.sleep(300);
        b.setData().forPath("/cache/x", "2".getBytes());
        Thread.sleep(300);
        b.delete().forPath("/cache/x");
        require(all.await(WAIT_S, TimeUnit.SECONDS), "four events, not " + seen);
        require(seen.get(0).equals("NODE_CREATED /cache") && seen.get(3).equals("NODE_DELETED /cache/x"), seen.toString());
        cache.close();
        ok("cache");
    }

    static void barrierAndNode(CuratorFramework a, CuratorFramework b) throws Exception {
        DistributedBarrier barrier = new DistributedBarrier(a, "/barrier");
        barrier.setBarrier();
        require(!barrier.waitOnBarrier(100, TimeUnit.MILLISECONDS), "closed");
        new DistributedBarrier(b, "/barrier").removeBarrier();
        require(barrier.waitOnBarrier(WAIT_S, TimeUnit.SECONDS), "open");
        PersistentNode node = new PersistentNode(a, CreateMode.EPHEMERAL, false, "/node", "x".getBytes());
        node.start();
        require(node.waitForInitialCreate(WAIT_S, TimeUnit.SECONDS), "made");
        b.delete().forPath("/node");
        for (int i = 0; i < 1000 && b.checkExists().forPath("/node") == null; i++) {
            Thread.sleep(10);
        }
        require(b.checkExists().forPath("/node") != null, "made again");
        node.close();
        ok("barrier and persistent node");
    }

    static void transaction(CuratorFramework a) throws Exception {
        a.transaction().forOperations(
            a.transactionOp().create().forPath("/tx", "1".getBytes()),
            a.transactionOp().setData().forPath("/tx", "2".getBytes()),
            a.transactionOp().check().withVersion(1).forPath("/tx"));
        require(Arrays.equals(a.getData().forPath("/tx"), "2".getBytes()), "all of it");
        ok("transaction");
    }

    public static void main(String[] arguments) throws Exception {
        CuratorFramework a = connect(arguments[0]), b = connect(arguments[0]);
        mutex(a, b);
        readWriteLock(a, b);
        leader(a, arguments[0]);
        counter(a, b);
        cache(a, b);
        barrierAndNode(a, b);
        transaction(a);
        a.close();
        b.close();
        System.out.println("passed " + passed);
        System.exit(0);
    }
}
