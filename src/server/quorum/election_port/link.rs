//! What a peer's task is told by others: one mailbox for each peer, in which everything has room once.
//!
//! - K1: telling never waits, and a newer thing takes the place of an older one of its kind.
//! - K2: whoever told something wakes the task.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::base::ServerId;
use crate::wire::quorum_config::MemberAddress;

/// A peer's mailbox.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ServerId,
    mail: Mutex<Mail>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    addresses: Vec<MemberAddress>,
    waiting: Option<Vec<u8>>,
    /// What was taken to be sent last.
    last: Option<Vec<u8>>,
    orders: Orders,
}

/// Held by the one task that speaks about a peer.
pub(super) type Turn = tokio::sync::Mutex<()>;

/// What the task is to do.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// The peer connected: this is the connection from now on.
    pub(super) incoming: Option<TcpStream>,
    /// The peer asked to be connected to.
    pub(super) call_back: bool,
    /// Connect now unless connected.
    pub(super) connect_now: bool,
    /// The peer is no member any more.
    pub(super) removed: bool,
}

impl Link {
    pub(super) fn new(id: ServerId, addresses: Vec<MemberAddress>) -> Link {
        Link { id, mail: Mutex::new(Mail { addresses, ..Mail::default() }), wake: Notify::new() }
    }

    fn tell(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.mail.lock());
        self.wake.notify_one();
    }

    pub(super) fn post(&self, message: Vec<u8>) {
        self.tell(|mail| mail.waiting = Some(message));
    }

    pub(super) fn connected_by_peer(&self, stream: TcpStream) {
        self.tell(|mail| mail.orders.incoming = Some(stream));
    }

    pub(super) fn asked_by_peer(&self) {
        self.tell(|mail| mail.orders.call_back = true);
    }

    pub(super) fn connect_now(&self) {
        self.tell(|mail| mail.orders.connect_now = true);
    }

    pub(super) fn remove(&self) {
        self.tell(|mail| mail.orders.removed = true);
    }

    pub(super) fn set_addresses(&self, addresses: Vec<MemberAddress>) {
        self.mail.lock().addresses = addresses;
    }

    pub(super) fn addresses(&self) -> Vec<MemberAddress> {
        self.mail.lock().addresses.clone()
    }

    /// Done when something was told since the last call; may also be done when nothing was.
    pub(super) async fn told(&self) {
        self.wake.notified().await;
    }

    pub(super) fn take_orders(&self) -> Orders {
        std::mem::take(&mut self.mail.lock().orders)
    }

    /// A new connection: what was said last waits again, unless something newer does.
    pub(super) fn say_last_again(&self) {
        let mut mail = self.mail.lock();
        if mail.waiting.is_none() {
            mail.waiting = mail.last.take();
        }
    }

    /// The message that waits, for `write`.
    pub(super) fn take_message(&self, write: impl FnOnce(&[u8])) {
        let mut mail = self.mail.lock();
        if let Some(message) = mail.waiting.take() {
            write(&message);
            mail.last = Some(message);
        }
    }
}

/// All mailboxes, and this server's own addresses.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: Mutex<BTreeMap<ServerId, Arc<Link>>>,
    mine: Mutex<Vec<MemberAddress>>,
    /// Who has a task; a later task of the same peer waits for its end.
    turns: Mutex<BTreeMap<ServerId, Weak<Turn>>>,
    /// Observers without an id that there have been.
    anonymous: AtomicI64,
}

impl Links {
    pub(super) fn get(&self, id: ServerId) -> Option<Arc<Link>> {
        self.all.lock().get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Link>> {
        self.all.lock().values().cloned().collect()
    }

    pub(super) fn insert(&self, link: Arc<Link>) {
        let before = self.all.lock().insert(link.id, link);
        assert!(before.is_none(), "a peer has one mailbox");
    }

    /// Takes the mailbox away if it is still this one.
    pub(super) fn remove(&self, link: &Arc<Link>) {
        let mut all = self.all.lock();
        if all.get(&link.id).is_some_and(|found| Arc::ptr_eq(found, link)) {
            all.remove(&link.id);
        }
    }

    pub(super) fn turn(&self, id: ServerId) -> Arc<Turn> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| turn.strong_count() > 0);
        let found = turns.get(&id).and_then(Weak::upgrade);
        found.unwrap_or_else(|| {
            let turn = Arc::new(Turn::default());
            turns.insert(id, Arc::downgrade(&turn));
            turn
        })
    }

    pub(super) fn retain(&self, keep: impl Fn(ServerId) -> bool) {
        self.all.lock().retain(|id, link| {
            let kept = keep(*id);
            if !kept {
                link.remove();
            }
            kept
        });
    }

    pub(super) fn count_anonymous(&self) -> usize {
        self.all.lock().range(..ServerId(0)).count()
    }

    /// An id for an observer that has none: -1, -2, …
    pub(super) fn next_anonymous(&self) -> ServerId {
        ServerId(-1 - self.anonymous.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn set_my_addresses(&self, addresses: Vec<MemberAddress>) {
        *self.mine.lock() = addresses;
    }

    pub(super) fn my_addresses(&self) -> Vec<MemberAddress> {
        self.mine.lock().clone()
    }
}
