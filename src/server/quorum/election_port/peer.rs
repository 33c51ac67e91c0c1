//! One peer: finds a connection, talks over it, finds the next.
//!
//! - PE1: at most one connection and one attempt to make one; whichever connection comes next takes the place of what is there.
//! - PE2: after [`ElectionEvent::Down`] there is none before the next [`ElectionEvent::Up`].
//! - PE3: a connection that was made a moment ago and broke is replaced at once only the first time, and one that brought nothing never;
//!   then the back-off counts. Servers that refuse each other, or two with one id that push each other out, do not spin.
//! - PE4: what has arrived is read to its end before the end of a connection counts, also when writing fails first.

use std::fmt;
use std::future::Future;
use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::link::{Link, Orders};
use super::{Context, ElectionEvent, REPLACE_WAIT, tune};
use crate::server::quorum::resolve::{ConnectError, connect};
use crate::wire::election::{parse_frame, put_frame, put_hello};
use crate::wire::quorum::{PeerError, Step};
use crate::wire::quorum_config::{ANY_HOST, HostPort};

/// First pause after an attempt that failed, and the last one; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A peer that is to connect back is asked so often in short intervals, which grow by this much each.
const QUICK_ASKS: u32 = 4;
const ASK_PAUSE: Duration = Duration::from_millis(5);

/// A connection this old was a good one, even if nothing was said.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Bytes that are read at a time, and what is kept of a buffer that a large frame has grown.
const READ_BYTES: usize = 8 << 10;
const KEPT_BYTES: usize = 64 << 10;

/// What was said last about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    Up,
    Down,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("it has no address")]
    NoAddress,
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    #[error("cannot say who this is: {0}")]
    Hello(#[from] io::Error),
}

/// Why a connection is one no more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("closed by the other side")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("what came is no frame: {0}")]
    Malformed(#[from] PeerError),
}

/// What a connection that broke was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// Nothing came, or nothing good.
    Nothing,
    /// Something was said.
    Heard,
    /// It stood for [`SETTLED_AFTER`].
    Settled,
}

/// How a conversation ends.
#[derive(Debug)]
enum Ending {
    /// By itself.
    Broken(Broken, Worth),
    /// Another connection takes its place.
    Replaced(TcpStream),
    /// The peer wants another one.
    Asked,
    /// The peer, or the port, is not wanted any more.
    Over,
}

type Attempt = Pin<Box<dyn Future<Output = Result<TcpStream, DialError>> + Send>>;

/// The search for a connection.
#[derive(Debug, Clone, Copy)]
struct Search {
    retry_at: Instant,
    /// When the peer counts as gone, unless that is said already or there is no reason yet.
    down_at: Option<Instant>,
}

/// The task of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    context: Arc<Context>,
    link: Arc<Link>,
    known: Known,
    pause: Duration,
}

impl Peer {
    pub(super) fn new(context: Arc<Context>, link: Arc<Link>) -> Peer {
        Peer { context, link, known: Known::Nothing, pause: PAUSE_MIN }
    }

    /// Until the peer is removed or the port dropped; for an observer without an id, until its connection ends.
    pub(super) async fn run(mut self) {
        // A member that went and came back: what is said of its old connection comes before what is said of the new one.
        let turn = self.context.links.turn(self.link.id);
        let _mine = turn.lock().await;
        self.live().await;
        if self.known == Known::Up {
            self.down(&"it is no member any more").await;
        }
        self.context.links.remove(&self.link);
    }

    /// An observer without an id, which cannot be connected to.
    fn is_anonymous(&self) -> bool {
        self.link.id.0 < 0
    }

    async fn live(&mut self) {
        let mut search = Search { retry_at: Instant::now(), down_at: None };
        let mut next = None;
        loop {
            let found = match next.take() {
                Some(stream) => Some(stream),
                None => self.search(search).await,
            };
            let Some(stream) = found else { return };
            if !self.up().await {
                return;
            }
            let ending = self.talk(stream).await;
            let now = Instant::now();
            search = Search { retry_at: now, down_at: Some(now + REPLACE_WAIT) };
            match ending {
                Ending::Over => return,
                Ending::Replaced(stream) => next = Some(stream),
                Ending::Asked => self.pause = PAUSE_MIN,
                Ending::Broken(why, worth) => {
                    tracing::debug!(peer = self.link.id.0, %why, ?worth, "an election connection broke");
                    if worth == Worth::Nothing || self.is_anonymous() {
                        self.down(&why).await;
                        search.down_at = None;
                    }
                    if self.is_anonymous() {
                        return;
                    }
                    search.retry_at = now + self.pause_behind(worth);
                }
            }
        }
    }

    /// The pause behind a connection that broke.
    fn pause_behind(&mut self, worth: Worth) -> Duration {
        if worth == Worth::Settled {
            self.pause = PAUSE_MIN;
        }
        let pause = self.next_pause();
        if worth != Worth::Nothing && pause == PAUSE_MIN { Duration::ZERO } else { pause }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// False when nobody takes events any more.
    async fn up(&mut self) -> bool {
        if self.known != Known::Up {
            tracing::info!(peer = self.link.id.0, "election connection up");
        }
        self.known = Known::Up;
        self.context.events.send(ElectionEvent::Up(self.link.id)).await.is_ok()
    }

    /// Says it once.
    async fn down(&mut self, why: &(dyn fmt::Display + Sync)) {
        if self.known == Known::Down {
            return;
        }
        tracing::info!(peer = self.link.id.0, %why, "election connection down");
        self.known = Known::Down;
        // Without a receiver there is nobody to tell.
        let _ = self.context.events.send(ElectionEvent::Down(self.link.id)).await;
    }

    /// The next connection; `None` when none is wanted any more.
    async fn search(&mut self, mut search: Search) -> Option<TcpStream> {
        let dials = self.context.me > self.link.id;
        let mut attempt: Option<Attempt> = None;
        let (mut again, mut asks) = (false, 0);
        loop {
            let orders = self.link.take_orders();
            let Orders { incoming, call_back, connect_now, removed } = orders;
            if removed {
                return None;
            }
            if incoming.is_some() {
                return incoming;
            }
            if call_back || connect_now {
                self.pause = PAUSE_MIN;
                again = attempt.is_some();
                search.retry_at = Instant::now();
            }
            if attempt.is_none() && !self.is_anonymous() && search.retry_at <= Instant::now() {
                attempt = Some(Box::pin(dial(Arc::clone(&self.context), Arc::clone(&self.link))));
            }
            let retry_at = attempt.is_none().then_some(search.retry_at);
            let wake_at = retry_at.into_iter().chain(search.down_at).min();
            let tried = tokio::select! {
                tried = async { attempt.as_mut().expect("there is one").await }, if attempt.is_some() => tried,
                () = async { sleep_until(wake_at.expect("there is one")).await }, if wake_at.is_some() => {
                    if search.down_at.is_some_and(|at| at <= Instant::now()) {
                        search.down_at = None;
                        self.down(&"it did not connect back in time").await;
                    }
                    continue;
                }
                () = self.link.told() => continue,
                () = self.context.events.closed() => return None,
            };
            attempt = None;
            let pause = match tried {
                Ok(stream) if dials => return Some(stream),
                Ok(asked) => {
                    drop(asked);
                    // It connects back, or it does not.
                    let _ = search.down_at.get_or_insert(Instant::now() + REPLACE_WAIT);
                    asks += 1;
                    // A process that ends takes connections for a moment longer: the next attempt is refused, and then it is known to be gone.
                    if asks <= QUICK_ASKS { ASK_PAUSE * asks } else { self.next_pause().max(REPLACE_WAIT) }
                }
                Err(error) => {
                    tracing::debug!(peer = self.link.id.0, %error, "no election connection");
                    search.down_at = None;
                    self.down(&error).await;
                    self.next_pause()
                }
            };
            // Whoever asked while the attempt was under way may have come up behind it.
            search.retry_at = if again { Instant::now() } else { Instant::now() + pause };
            again = false;
        }
    }

    /// Reads and writes until the connection ends or is not wanted any more.
    async fn talk(&mut self, mut stream: TcpStream) -> Ending {
        let since = Instant::now();
        let (mut reader, mut writer) = stream.split();
        let mut input = BytesMut::new();
        let mut output = Cursor::new(Vec::new());
        let mut received: Option<Vec<u8>> = None;
        let (mut heard, mut can_write) = (false, true);
        self.link.say_last_again();
        loop {
            if let Some(ending) = self.obey(since) {
                return ending;
            }
            if can_write && !output.has_remaining() {
                output = Cursor::new(Vec::new());
                self.link.take_message(|m| put_frame(output.get_mut(), |out| out.extend_from_slice(m)));
            }
            if received.is_none() {
                match take_frame(&mut input) {
                    Ok(frame) => received = frame,
                    Err(why) => return Ending::Broken(why.into(), Worth::Nothing),
                }
                heard |= received.is_some();
            }
            let worth = || match heard {
                _ if since.elapsed() >= SETTLED_AFTER => Worth::Settled,
                true => Worth::Heard,
                false => Worth::Nothing,
            };
            tokio::select! {
                permit = self.context.events.reserve(), if received.is_some() => {
                    let Ok(permit) = permit else { return Ending::Over };
                    let bytes = received.take().expect("checked above");
                    permit.send(ElectionEvent::Message { from: self.link.id, bytes });
                }
                read = read_some(&mut reader, &mut input), if received.is_none() => match read {
                    Ok(()) => {}
                    Err(why) => return Ending::Broken(why, worth()),
                },
                wrote = writer.write_buf(&mut output), if output.has_remaining() => {
                    if let Err(error) = wrote {
                        // Reading meets the end too, behind what has arrived.
                        tracing::debug!(peer = self.link.id.0, %error, "cannot write to a peer");
                        can_write = false;
                        output = Cursor::new(Vec::new());
                    }
                }
                () = self.link.told() => {}
                () = self.context.events.closed() => return Ending::Over,
            }
        }
    }

    /// What others want of a connection that is as old as `since`.
    fn obey(&self, since: Instant) -> Option<Ending> {
        let Orders { incoming, call_back, connect_now: _, removed } = self.link.take_orders();
        if removed {
            return Some(Ending::Over);
        }
        if let Some(stream) = incoming {
            return Some(Ending::Replaced(stream));
        }
        // A peer that asks while it is being connected to has what it wants; one that restarts has ended its old connection.
        (call_back && since.elapsed() >= REPLACE_WAIT).then_some(Ending::Asked)
    }
}

async fn read_some(reader: &mut tokio::net::tcp::ReadHalf<'_>, input: &mut BytesMut) -> Result<(), Broken> {
    input.reserve(READ_BYTES);
    match reader.read_buf(input).await? {
        0 => Err(Broken::Closed),
        _ => Ok(()),
    }
}

/// The content of the frame at the start of `input`, if it is there in whole.
fn take_frame(input: &mut BytesMut) -> Result<Option<Vec<u8>>, PeerError> {
    let Step::Done { value, consumed } = parse_frame(input)? else { return Ok(None) };
    let frame = value.to_vec();
    input.advance(consumed);
    if input.is_empty() && frame.len() > KEPT_BYTES {
        *input = BytesMut::new();
    }
    Ok(Some(frame))
}

/// Connects to the first of the peer's addresses that answers, and says who this is.
async fn dial(context: Arc<Context>, link: Arc<Link>) -> Result<TcpStream, DialError> {
    let mut failed = DialError::NoAddress;
    for address in link.addresses() {
        let target = HostPort { host: &address.host, port: address.election_port };
        match connect(target, context.connect_timeout).await {
            Ok(stream) => {
                tune(&stream);
                return introduce(&context, stream).await;
            }
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}

async fn introduce(context: &Context, mut stream: TcpStream) -> Result<TcpStream, DialError> {
    let mine = context.links.my_addresses();
    let mut hello = Vec::new();
    let first = mine.first().map(|a| HostPort { host: &a.host, port: a.election_port });
    // One that is not in its own configuration has no address to tell: the other side has to know it.
    put_hello(&mut hello, context.me, false, [first.unwrap_or(HostPort { host: ANY_HOST, port: 0 })]);
    let sent = timeout(context.connect_timeout, stream.write_all(&hello)).await;
    sent.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?;
    Ok(stream)
}
