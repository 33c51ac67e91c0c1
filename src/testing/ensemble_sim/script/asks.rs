//! What the clients of a script ask for.

use super::super::options::register;
use super::{Client, Halt, Script, Told};
use crate::node::auth::open_acl;
use crate::testing::world::body;
use crate::wire::OpCode;

impl Script<'_> {
    /// A client with a session, connected to a node that serves.
    pub fn client(&mut self, node: usize) -> Told<Client> {
        let client = Client(self.world.add_directed_client());
        self.connect(client, node)?;
        self.until_live(client)?;
        Ok(client)
    }

    /// A client takes its session to a node. Whether the node takes it shows later.
    pub fn connect(&mut self, client: Client, node: usize) -> Told {
        self.disconnect(client);
        self.world.clients[client.0].home = Some(node);
        self.world.connect(client.0);
        Ok(())
    }

    /// A client closes its connection; its session goes on.
    pub fn disconnect(&mut self, client: Client) {
        if let Some(conn) = self.world.clients[client.0].conn {
            self.world.leave(client.0, conn);
        }
    }

    /// Waits until the node of a client has taken its session.
    pub fn until_live(&mut self, client: Client) -> Told {
        self.until("a session", |script| script.world.clients[client.0].live)
    }

    /// The client has a session on a connection that stands.
    #[must_use]
    pub fn is_live(&self, client: Client) -> bool {
        self.world.clients[client.0].live
    }

    /// A client sends a write, without waiting for the answer.
    pub fn write(&mut self, client: Client) -> Told {
        self.put(client, |value, cxid| {
            let path = register(client.0 as u64);
            let data = value.as_bytes();
            match cxid {
                1 => (OpCode::Create, body::create_with(&path, Some(data), 0, &open_acl())),
                _ => (OpCode::SetData, body::set_data(&path, Some(data), -1)),
            }
        })
    }

    /// A client creates nodes so large that fourteen of them fill a segment of the log.
    pub fn write_much(&mut self, client: Client, count: usize) -> Told {
        for _ in 0..count {
            self.put(client, |_, cxid| {
                let path = format!("/b{}-{cxid}", client.0);
                (OpCode::Create, body::create_with(&path, Some(&[b'.'; 1_200]), 0, &open_acl()))
            })?;
            self.run_for(3)?;
        }
        self.until_answered(client)
    }

    /// A client creates a node that ends with its session.
    pub fn create_ephemeral(&mut self, client: Client) -> Told {
        let path = format!("/e{}-", client.0);
        self.put(client, |_, _| (OpCode::Create, body::create(&path, 3)))
    }

    /// A client reads what it has written.
    pub fn read(&mut self, client: Client) -> Told {
        self.read_of(client, client)
    }

    /// A client reads what another has written.
    pub fn read_of(&mut self, client: Client, other: Client) -> Told {
        let path = register(other.0 as u64);
        self.put(client, |_, _| (OpCode::GetData, body::path_watch(&path, false)))
    }

    /// A client watches what another writes, for good.
    pub fn watch_of(&mut self, client: Client, other: Client) -> Told {
        let path = register(other.0 as u64);
        self.put(client, |_, _| (OpCode::AddWatch, body::path_int(&path, 0)))
    }

    /// A client asks its node to catch up.
    pub fn sync(&mut self, client: Client) -> Told {
        self.put(client, |_, _| (OpCode::Sync, body::path_only("/")))
    }

    fn put(&mut self, client: Client, ask: impl FnOnce(String, i32) -> (OpCode, Vec<u8>)) -> Told {
        let state = &mut self.world.clients[client.0];
        let (Some((node, _, conn)), true, Some(session)) = (state.conn, state.live, state.session) else {
            return Err(Halt::Astray(format!("client {} has no session", client.0)));
        };
        state.cxid += 1;
        let cxid = state.cxid;
        let (op, body) = ask(format!("{session}:{cxid}"), cxid);
        self.world.put_request(client.0, (node, conn), cxid, op, body);
        Ok(())
    }

    /// Waits until a client has the answers to all it asked for.
    pub fn until_answered(&mut self, client: Client) -> Told {
        let before = self.world.clients[client.0].conn;
        self.until("answers", |script| script.world.clients[client.0].outstanding.is_empty())?;
        if self.world.clients[client.0].conn == before {
            return Ok(());
        }
        Err(Halt::Astray(format!("client {} is disconnected", client.0)))
    }

    /// A client writes, and waits for the answer.
    pub fn write_and_wait(&mut self, client: Client) -> Told {
        self.write(client)?;
        self.until_answered(client)
    }

    /// Answers that a client waits for.
    #[must_use]
    pub fn unanswered(&self, client: Client) -> usize {
        self.world.clients[client.0].outstanding.len()
    }

    /// A line in the trace.
    pub fn say(&mut self, what: &str) {
        self.world.note(|| format!("script: {what}"));
    }
}
