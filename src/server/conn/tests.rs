//! Sending in place of a connection's task.

use std::io::Read as _;

use super::*;
use crate::base::WallMs;

/// A connection whose task has begun, and its client.
async fn connection() -> (Arc<Conn>, std::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let conn = Conn::new(ConnId(1), peer, AuthIds::of_peer(peer.ip()), WallMs(0), 64 << 20);
    conn.set_stream(Some(Arc::new(stream)));
    (conn, client)
}

fn put(conn: &Conn, bytes: &[u8]) {
    conn.put(|out| out.bytes.extend_from_slice(bytes));
}

fn got(client: &mut std::net::TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn an_answer_is_sent_without_the_task_while_that_waits_for_its_client() {
    let (conn, mut client) = connection().await;
    conn.expect_client(true);
    put(&conn, b"an answer");
    assert!(conn.send_for_task());
    assert_eq!(got(&mut client, 9), b"an answer");
    assert_eq!(conn.unread_bytes(), 0);
}

#[tokio::test]
async fn a_task_that_may_wait_for_something_else_is_to_be_woken() {
    let (conn, mut client) = connection().await;
    conn.expect_client(true);
    conn.expect_client(false);
    put(&conn, b"first ");
    assert!(!conn.send_for_task(), "it may wait for the very write that is answered");
    put(&conn, b"second");
    assert_eq!(conn.send().unwrap(), Sent { unsent: false, some: true, close: false });
    assert_eq!(got(&mut client, 12), b"first second");
}

#[tokio::test]
async fn what_the_socket_does_not_take_is_the_tasks_to_send_in_order() {
    let (conn, mut client) = connection().await;
    conn.expect_client(true);
    let bytes: Vec<u8> = (0..32 << 20).map(|at: u32| (at / 1_000) as u8).collect();
    put(&conn, &bytes);
    assert!(!conn.send_for_task(), "no socket takes 32 MiB at once");
    put(&conn, b"behind it");
    assert!(!conn.send_for_task(), "nothing overtakes what is left");
    let reader = std::thread::spawn(move || got(&mut client, (32 << 20) + 9));
    while conn.send().unwrap().unsent {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let received = reader.join().unwrap();
    assert!(received[..bytes.len()] == bytes[..] && received.ends_with(b"behind it"));
}

#[tokio::test]
async fn a_connection_that_is_to_end_is_its_tasks_to_end() {
    let (conn, mut client) = connection().await;
    conn.expect_client(true);
    conn.put(|out| {
        out.bytes.extend_from_slice(b"bye");
        out.close_after = true;
    });
    assert!(!conn.send_for_task());
    assert!(conn.send().unwrap().close);
    assert_eq!(got(&mut client, 3), b"bye");
    conn.kill();
    put(&conn, b"more");
    assert!(!conn.send_for_task(), "and one that is over gets nothing");
}

#[tokio::test]
async fn nothing_follows_what_was_too_much_for_the_outbox() {
    let (conn, _client) = connection().await;
    put(&conn, &vec![0; (64 << 20) + 1]);
    assert!(conn.is_killed());
    put(&conn, b"behind a gap");
    assert_eq!(conn.unread_bytes(), 0);
}
