//! Real sockets on loopback. Peers are ports of the same kind, or played by hand.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::wire::election::{Hello, put_frame, put_hello};
use crate::wire::quorum::Step;
use crate::wire::quorum_config::HostPort;
use ElectionEvent::{Down, Up};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("should have happened by now")
}

type Members = BTreeMap<ServerId, Vec<MemberAddress>>;

fn address(host: &str, election_port: u16) -> Vec<MemberAddress> {
    vec![MemberAddress { host: host.to_owned(), quorum_port: 1, election_port }]
}

/// Members at ports that were free a moment ago.
fn members(ids: &[i64]) -> Members {
    let held: Vec<_> =
        ids.iter().map(|id| (*id, std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap())).collect();
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    held.iter().map(|(id, l)| (ServerId(*id), address("127.0.0.1", port(l)))).collect()
}

fn options(me: i64, members: &Members) -> ElectionPortOptions {
    let me = ServerId(me);
    let listen = members[&me]
        .iter()
        .map(|a| ListenAddress { host: Some(a.host.clone()), port: a.election_port })
        .collect();
    ElectionPortOptions {
        me,
        members: members.clone(),
        listen,
        // Somebody's outgoing connection may sit on the port for a moment.
        bind_tries: 500,
        bind_pause: Duration::from_millis(10),
        connect_timeout: LONG,
        handshake_timeout: LONG,
    }
}

async fn start(me: i64, members: &Members) -> ElectionPort {
    soon(ElectionPort::start(options(me, members))).await.unwrap()
}

/// Events up to `last`, which is left out.
async fn until(port: &mut ElectionPort, last: &ElectionEvent) -> Vec<ElectionEvent> {
    let mut seen = Vec::new();
    loop {
        let event = soon(port.recv()).await;
        if event == *last {
            return seen;
        }
        seen.push(event);
    }
}

fn message(from: i64, text: &str) -> ElectionEvent {
    ElectionEvent::Message { from: ServerId(from), bytes: text.into() }
}

/// A peer played by hand.
struct ByHand {
    id: i64,
    listener: TcpListener,
}

impl ByHand {
    async fn bind(id: i64, members: &mut Members) -> ByHand {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        members.insert(ServerId(id), address("127.0.0.1", listener.local_addr().unwrap().port()));
        ByHand { id, listener }
    }

    /// Connects to `to` and says who it is.
    async fn connect(&self, to: i64, members: &Members) -> TcpStream {
        connect_as(self.id, to, members).await
    }

    /// Takes a connection and reads who it is.
    async fn accept(&self) -> (TcpStream, ServerId) {
        let (mut stream, _) = soon(self.listener.accept()).await.unwrap();
        let mut bytes = Vec::new();
        loop {
            match Hello::parse(&bytes).unwrap() {
                Step::Done { value, .. } => {
                    assert_eq!(value.addresses().next().map(|a| a.host), Some("127.0.0.1"));
                    return (stream, value.server);
                }
                Step::NeedMore { .. } => bytes.push(soon(stream.read_u8()).await.unwrap()),
            }
        }
    }
}

fn hello(id: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_hello(&mut bytes, ServerId(id), false, [HostPort { host: "127.0.0.1", port: 1 }]);
    bytes
}

async fn raw(to: i64, members: &Members) -> TcpStream {
    soon(TcpStream::connect(("127.0.0.1", members[&ServerId(to)][0].election_port))).await.unwrap()
}

async fn connect_as(id: i64, to: i64, members: &Members) -> TcpStream {
    let mut stream = raw(to, members).await;
    stream.write_all(&hello(id)).await.unwrap();
    stream
}

fn frame(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, |out| out.extend_from_slice(text.as_bytes()));
    bytes
}

async fn read_frame(stream: &mut TcpStream) -> String {
    let len = soon(stream.read_i32()).await.unwrap();
    let mut bytes = vec![0; len as usize];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// True once the other side has closed.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.map_or(true, |_| rest.is_empty())
}

#[tokio::test]
async fn three_members_talk_whoever_starts_first() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let members = members(&[1, 2, 3]);
        let mut ports = BTreeMap::new();
        for id in order {
            ports.insert(id, start(id, &members).await);
        }
        for (me, port) in &mut ports {
            let others: Vec<i64> = [1, 2, 3].into_iter().filter(|id| id != me).collect();
            others.iter().for_each(|to| port.send(ServerId(*to), format!("{me} to {to}").into()));
        }
        for (me, port) in &mut ports {
            let mut awaited: Vec<i64> = [1, 2, 3].into_iter().filter(|id| id != me).collect();
            let mut up = Vec::new();
            while !awaited.is_empty() {
                match soon(port.recv()).await {
                    Up(id) => up.push(id.0),
                    Down(id) => up.retain(|up| *up != id.0),
                    ElectionEvent::Message { from, bytes } => {
                        assert!(up.contains(&from.0), "{order:?}: a message of {from:?} before it is up");
                        assert_eq!(bytes, format!("{} to {me}", from.0).into_bytes());
                        awaited.retain(|id| *id != from.0);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_smaller_id_is_closed_and_connected_back_to() {
    let mut members = members(&[2]);
    let small = ByHand::bind(1, &mut members).await;
    let mut port = start(2, &members).await;
    let (first, who) = small.accept().await;
    assert_eq!(who, ServerId(2));
    assert_eq!(soon(port.recv()).await, Up(ServerId(1)));
    // It has lost that connection and asks for another one. Young connections are kept, so it asks until it has one.
    let mut second = loop {
        let mut asking = small.connect(2, &members).await;
        assert!(is_closed(&mut asking).await);
        if let Ok((stream, _)) = tokio::time::timeout(REPLACE_WAIT, small.accept()).await {
            break stream;
        }
    };
    drop(first);
    // Without a Down in between, and it is the one that counts.
    assert_eq!(soon(port.recv()).await, Up(ServerId(1)));
    second.write_all(&frame("second")).await.unwrap();
    assert_eq!(soon(port.recv()).await, message(1, "second"));
}

#[tokio::test]
async fn a_larger_id_is_kept_and_asked_when_it_is_missed() {
    let mut members = members(&[1]);
    let large = ByHand::bind(2, &mut members).await;
    let mut port = start(1, &members).await;
    // Asked for a connection: a hello, and the end.
    let (mut asking, who) = large.accept().await;
    assert_eq!(who, ServerId(1));
    assert!(is_closed(&mut asking).await);
    let mut first = large.connect(1, &members).await;
    until(&mut port, &Up(ServerId(2))).await;
    // A new connection replaces the old one, which is closed.
    let mut second = large.connect(1, &members).await;
    assert_eq!(soon(port.recv()).await, Up(ServerId(2)));
    assert!(is_closed(&mut first).await);
    second.write_all(&frame("here")).await.unwrap();
    assert_eq!(soon(port.recv()).await, message(2, "here"));
    port.send(ServerId(2), b"there".to_vec());
    assert_eq!(read_frame(&mut second).await, "there");
    // It ends, is asked for another one, and does not come.
    drop(second);
    loop {
        let (mut asking, _) = large.accept().await;
        assert!(is_closed(&mut asking).await);
        if let Some(event) = port.try_recv() {
            assert_eq!(event, Down(ServerId(2)));
            break;
        }
    }
}

#[tokio::test]
async fn a_peer_that_dies_is_down_at_once_and_up_when_it_is_back() {
    for (stays, dies) in [(1, 2), (2, 1)] {
        let members = members(&[1, 2]);
        let mut port = start(stays, &members).await;
        let mut other = start(dies, &members).await;
        until(&mut port, &Up(ServerId(dies))).await;
        other.send(ServerId(stays), b"hello".to_vec());
        until(&mut port, &message(dies, "hello")).await;
        until(&mut other, &Up(ServerId(stays))).await;
        port.send(ServerId(dies), b"last".to_vec());
        until(&mut other, &message(stays, "last")).await;
        let died = Instant::now();
        drop(other);
        until(&mut port, &Down(ServerId(dies))).await;
        let noticed = died.elapsed();
        assert!(noticed < Duration::from_secs(2), "{noticed:?}");
        // What was said last is said again to the one that comes back.
        let mut other = start(dies, &members).await;
        until(&mut port, &Up(ServerId(dies))).await;
        until(&mut other, &message(stays, "last")).await;
    }
}

#[tokio::test]
async fn what_a_peer_said_before_it_ended_comes_before_its_end() {
    let mut members = members(&[1]);
    let large = ByHand::bind(2, &mut members).await;
    let mut port = start(1, &members).await;
    let count = 3 * EVENTS_MAX;
    let mut stream = large.connect(1, &members).await;
    let said: Vec<String> = (0..count).map(|n| format!("message {n}")).collect();
    stream.write_all(&said.iter().flat_map(|text| frame(text)).collect::<Vec<u8>>()).await.unwrap();
    drop((stream, large));
    // Nobody has taken anything yet: the rest waits in the socket, and after it comes the end.
    until(&mut port, &Up(ServerId(2))).await;
    let seen = until(&mut port, &Down(ServerId(2))).await;
    assert_eq!(seen, said.iter().map(|text| message(2, text)).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_newest_message_waits_and_the_last_is_repeated() {
    let mut members = members(&[2]);
    let small = ByHand::bind(1, &mut members).await;
    let mut port = start(2, &members).await;
    // Not a byte is sent before the tasks run.
    for text in ["old", "newer", "newest"] {
        port.send(ServerId(1), text.into());
    }
    let (mut stream, _) = small.accept().await;
    assert_eq!(read_frame(&mut stream).await, "newest");
    until(&mut port, &Up(ServerId(1))).await;
    drop(stream);
    let (mut stream, _) = small.accept().await;
    assert_eq!(read_frame(&mut stream).await, "newest");
    drop(stream);
    until(&mut port, &Up(ServerId(1))).await;
    port.send(ServerId(1), b"after".to_vec());
    loop {
        let (mut stream, _) = small.accept().await;
        if read_frame(&mut stream).await == "after" {
            break;
        }
    }
    // To somebody who is not there nothing is said, and what is no frame to nobody.
    port.send(ServerId(9), b"x".to_vec());
    port.send(ServerId(1), Vec::new());
    port.send(ServerId(1), vec![0; FRAME_BYTES_MAX + 1]);
    port.send(ServerId(1), b"end".to_vec());
    loop {
        let (mut stream, _) = small.accept().await;
        match read_frame(&mut stream).await.as_str() {
            "end" => break,
            text => assert_eq!(text, "after"),
        }
    }
}

#[tokio::test]
async fn a_connection_that_worked_is_replaced_at_once_but_not_again_and_again() {
    let mut members = members(&[2]);
    let small = ByHand::bind(1, &mut members).await;
    let mut port = start(2, &members).await;
    let begun = Instant::now();
    for round in 0..6 {
        let (mut stream, _) = small.accept().await;
        // The first time without a word; later the back-off is longer than the wait for a replacement.
        if round >= 2 {
            assert_eq!(soon(port.recv()).await, Down(ServerId(1)), "{round}");
        }
        assert_eq!(soon(port.recv()).await, Up(ServerId(1)), "{round}");
        stream.write_all(&frame("worked")).await.unwrap();
        assert_eq!(soon(port.recv()).await, message(1, "worked"), "{round}");
    }
    // 0, 100, 200, 400, 800 ms.
    assert!(begun.elapsed() >= Duration::from_millis(1_490), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn two_servers_with_one_id_do_not_spin() {
    let members = members(&[1, 2]);
    let mut one = start(1, &members).await;
    let mut twins = Vec::new();
    for _ in 0..2 {
        let listen = vec![ListenAddress { host: Some("127.0.0.1".into()), port: 0 }];
        let twin = ElectionPort::start(ElectionPortOptions { listen, ..options(2, &members) });
        twins.push(soon(twin).await.unwrap());
        one.send(ServerId(2), b"hello".to_vec());
    }
    let begun = Instant::now();
    let mut ups = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        tokio::select! {
            event = one.recv() => ups += u32::from(event == Up(ServerId(2))),
            _ = twins[0].recv() => {}
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    assert!(ups < 60, "{ups} connections in 2 s");
}

#[tokio::test]
async fn who_goes_and_comes_back_is_down_before_it_is_up() {
    let all = members(&[1, 2]);
    let mut one = start(1, &all).await;
    let mut two = start(2, &all).await;
    until(&mut two, &Up(ServerId(1))).await;
    let alone: Members = all.clone().into_iter().filter(|(id, _)| id.0 == 2).collect();
    // Nothing runs between the two.
    two.set_members(alone);
    two.set_members(all);
    until(&mut two, &Down(ServerId(1))).await;
    until(&mut two, &Up(ServerId(1))).await;
    two.send(ServerId(1), b"back".to_vec());
    until(&mut one, &message(2, "back")).await;
}

#[test]
fn options_are_what_the_operator_decided() {
    let text = "dataDir=/d\nclientPort=1\ninitLimit=5\nsyncLimit=2\ntickTime=100\ncnxTimeout=70\n\
                server.1=a:2888:3888\nserver.2=[::1]:2889:3889\nserver.3=c:2890:3890:observer\n";
    let files = |path: &std::path::Path| {
        Ok(Some(if path.ends_with("myid") { b"2".to_vec() } else { text.as_bytes().to_vec() }))
    };
    let of = |flags: &[String]| {
        let read = crate::server::config::Config::read(Some("zoo.cfg".as_ref()), flags, &files).unwrap();
        ElectionPortOptions::of(&read.config.ensemble.unwrap())
    };
    let options = of(&[]);
    assert_eq!((options.me, options.members.len(), options.bind_tries), (ServerId(2), 3, 3));
    assert_eq!(
        options.members[&ServerId(3)],
        [MemberAddress { host: "c".into(), quorum_port: 2890, election_port: 3890 }]
    );
    assert_eq!(options.listen[0].to_string(), "[::1]:3889");
    assert_eq!((options.connect_timeout.as_millis(), options.handshake_timeout.as_millis()), (70, 200));
    assert_eq!(of(&["quorumListenOnAllIPs=true".to_owned()]).listen[0].to_string(), "*:3889");
}

#[tokio::test]
async fn strangers_and_garbage_are_closed_and_nothing_else_is() {
    let mut members = members(&[1]);
    let large = ByHand::bind(2, &mut members).await;
    let mut port = start(1, &members).await;
    let mut good = large.connect(1, &members).await;
    until(&mut port, &Up(ServerId(2))).await;
    let long_address = [&hello(2)[..16], &4_000_i32.to_be_bytes()].concat();
    for bytes in [hello(3), hello(1), hello(-7), (-1_i64).to_be_bytes().to_vec(), long_address] {
        let mut stream = raw(1, &members).await;
        stream.write_all(&bytes).await.unwrap();
        assert!(is_closed(&mut stream).await, "{bytes:?}");
    }
    good.write_all(&frame("still here")).await.unwrap();
    assert_eq!(soon(port.recv()).await, message(2, "still here"));
    // The connection of a member that sends no frames ends, and the next one is as good as any.
    for bytes in [&[0, 0, 0, 0][..], &[0xff; 4], &(512 * 1_024 + 1_i32).to_be_bytes()] {
        let mut bad = large.connect(1, &members).await;
        until(&mut port, &Up(ServerId(2))).await;
        bad.write_all(bytes).await.unwrap();
        assert_eq!(soon(port.recv()).await, Down(ServerId(2)));
        assert!(is_closed(&mut bad).await);
    }
    let mut good = large.connect(1, &members).await;
    until(&mut port, &Up(ServerId(2))).await;
    let large_frame = "x".repeat(512 * 1_024);
    good.write_all(&frame(&large_frame)).await.unwrap();
    assert_eq!(soon(port.recv()).await, message(2, &large_frame));
}

#[tokio::test]
async fn who_does_not_say_who_it_is_is_closed() {
    let members = members(&[1]);
    let quick = ElectionPortOptions { handshake_timeout: Duration::from_millis(20), ..options(1, &members) };
    let port = soon(ElectionPort::start(quick)).await.unwrap();
    for bytes in [&[][..], &hello(2)[..19]] {
        let mut stream = raw(1, &members).await;
        stream.write_all(bytes).await.unwrap();
        assert!(is_closed(&mut stream).await);
    }
    drop(port);
    // And without a short timeout, the oldest makes room.
    let mut port = start(1, &members).await;
    let mut oldest = raw(1, &members).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(raw(1, &members).await);
    }
    assert!(is_closed(&mut oldest).await);
    port.set_members(BTreeMap::new());
}

#[tokio::test]
async fn a_peer_that_refuses_is_tried_more_and_more_seldom_until_it_matters() {
    let mut members = members(&[2]);
    let small = ByHand::bind(1, &mut members).await;
    let mut port = start(2, &members).await;
    let mut begun = Instant::now();
    for round in 0..16 {
        let (stream, _) = small.accept().await;
        drop(stream);
        assert_eq!(soon(port.recv()).await, Up(ServerId(1)), "{round}");
        assert_eq!(soon(port.recv()).await, Down(ServerId(1)), "{round}");
        if round == 4 {
            // 50, 100, 200, 400 ms between five attempts.
            assert!(begun.elapsed() >= Duration::from_millis(740), "{:?}", begun.elapsed());
            begun = Instant::now();
        }
        if round >= 4 {
            port.reconnect();
        }
    }
    // Eleven more, with 50 ms between them at most: back-off alone would take over nine seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_observer_without_an_id_gets_one() {
    let members = members(&[1]);
    let mut port = start(1, &members).await;
    for id in [-1, -2] {
        let mut observer = connect_as(i64::MAX, 1, &members).await;
        assert_eq!(soon(port.recv()).await, Up(ServerId(id)));
        observer.write_all(&frame("who leads?")).await.unwrap();
        assert_eq!(soon(port.recv()).await, message(id, "who leads?"));
        port.send(ServerId(id), b"one".to_vec());
        assert_eq!(read_frame(&mut observer).await, "one");
        drop(observer);
        assert_eq!(soon(port.recv()).await, Down(ServerId(id)));
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_down_and_harms_nobody() {
    let mut all = members(&[2, 3]);
    all.insert(ServerId(1), address("nowhere.invalid", 3888));
    let mut port = start(3, &all).await;
    let mut other = start(2, &all).await;
    port.send(ServerId(2), b"hello".to_vec());
    until(&mut other, &message(3, "hello")).await;
    let seen = until(&mut other, &Down(ServerId(1))).await;
    assert!(!seen.contains(&Up(ServerId(1))), "{seen:?}");
    // Every address of a member is tried, and names count as they are now.
    let lone = members(&[1]);
    let mut addresses = all[&ServerId(1)].clone();
    addresses.extend(lone[&ServerId(1)].clone());
    all.insert(ServerId(1), addresses);
    port.set_members(all.clone());
    all.insert(ServerId(1), lone[&ServerId(1)].clone());
    let mut third = start(1, &all).await;
    port.reconnect();
    until(&mut port, &Up(ServerId(1))).await;
    until(&mut third, &Up(ServerId(3))).await;
}

#[tokio::test]
async fn members_come_and_go() {
    let all = members(&[1, 2, 3]);
    let mut ports = Vec::new();
    for id in [1, 2, 3] {
        ports.push(start(id, &all).await);
    }
    let mut three = ports.pop().unwrap();
    let (mut up, mut others) = (Vec::new(), [1, 2].map(ServerId).to_vec());
    while !others.is_empty() {
        if let Up(id) = soon(three.recv()).await {
            others.retain(|other| *other != id);
            up.push(id);
        }
    }
    let fewer: Members = all.clone().into_iter().filter(|(id, _)| id.0 != 1).collect();
    three.set_members(fewer);
    until(&mut three, &Down(ServerId(1))).await;
    until(&mut ports[0], &Down(ServerId(3))).await;
    // The other connection was not touched.
    three.send(ServerId(2), b"still".to_vec());
    until(&mut ports[1], &message(3, "still")).await;
    three.set_members(all);
    until(&mut three, &Up(ServerId(1))).await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it_and_ipv6_is_an_address_like_any() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let members = BTreeMap::from([(ServerId(1), address("127.0.0.1", port))]);
    let twice =
        ElectionPortOptions { bind_tries: 2, bind_pause: Duration::from_millis(1), ..options(1, &members) };
    let refused = soon(ElectionPort::start(twice)).await.unwrap_err();
    assert_eq!((refused.tries, refused.address.to_string()), (2, format!("127.0.0.1:{port}")));

    let Ok(free) = std::net::TcpListener::bind(("::1", 0)) else { return };
    let six = free.local_addr().unwrap().port();
    drop(free);
    let mut members = self::members(&[1]);
    members.insert(ServerId(2), address("::1", six));
    let mut two = start(2, &members).await;
    let mut one = start(1, &members).await;
    two.send(ServerId(1), b"six".to_vec());
    until(&mut one, &message(2, "six")).await;
    until(&mut two, &Up(ServerId(1))).await;
}
