//! Operation and error numbers of the client protocol.

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $name {
            /// The value with this number, if there is one.
            #[must_use]
            pub const fn from_i32(v: i32) -> Option<$name> {
                match v { $($value => Some($name::$variant),)* _ => None }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn to_i32(self) -> i32 {
                self as i32
            }
        }
    };
}

codes! {
    /// What a request asks for (`ZooDefs.OpCode`).
    OpCode {
        /// Reply carries the path.
        Create = 1,
        /// Removes a node without children.
        Delete = 2,
        /// Stat, watch also on a missing node.
        Exists = 3,
        /// Data and stat.
        GetData = 4,
        /// Replaces the data.
        SetData = 5,
        /// ACL and stat.
        GetAcl = 6,
        /// Replaces the ACL.
        SetAcl = 7,
        /// Child names.
        GetChildren = 8,
        /// Flush through the leader.
        Sync = 9,
        /// Heartbeat.
        Ping = 11,
        /// Child names and stat.
        GetChildren2 = 12,
        /// Version check inside a multi.
        Check = 13,
        /// Several writes in one transaction.
        Multi = 14,
        /// Create; reply carries path and stat.
        Create2 = 15,
        /// Change of membership.
        Reconfig = 16,
        /// Is there such a watch of mine?
        CheckWatches = 17,
        /// Removes watches of mine.
        RemoveWatches = 18,
        /// Create of a node that goes when its last child goes.
        CreateContainer = 19,
        /// What the container reaper sends.
        DeleteContainer = 20,
        /// Create of a node that goes when left alone for long.
        CreateTtl = 21,
        /// Several reads in one request.
        MultiRead = 22,
        /// Adds an identity to the connection.
        Auth = 100,
        /// Sets watches again after a reconnect.
        SetWatches = 101,
        /// One step of a SASL exchange.
        Sasl = 102,
        /// My ephemeral nodes.
        GetEphemerals = 103,
        /// Number of all descendants.
        GetAllChildrenNumber = 104,
        /// As 101, with persistent watches.
        SetWatches2 = 105,
        /// Adds a persistent watch.
        AddWatch = 106,
        /// The identities of the connection.
        WhoAmI = 107,
        /// Internal: a session begins.
        CreateSession = -10,
        /// A session ends.
        CloseSession = -11,
        /// Internal: a transaction that failed; result type of a failed multi.
        Error = -1,
    }
}

codes! {
    /// Why a request was refused (`KeeperException.Code`).
    ErrorCode {
        /// It was not.
        Ok = 0,
        /// The server cannot: disk full, failing.
        SystemError = -1,
        /// Not run, because an earlier operation of the same multi failed.
        RuntimeInconsistency = -2,
        /// Undecodable body.
        MarshallingError = -5,
        /// No such operation here.
        Unimplemented = -6,
        /// Arguments that make no sense.
        BadArguments = -8,
        /// New configuration has no quorum.
        NewConfigNoQuorum = -13,
        /// Another reconfiguration runs.
        ReconfigInProgress = -14,
        /// No such node.
        NoNode = -101,
        /// Not allowed by the node's ACL.
        NoAuth = -102,
        /// The node has another version.
        BadVersion = -103,
        /// Ephemeral nodes have no children.
        NoChildrenForEphemerals = -108,
        /// There is such a node.
        NodeExists = -110,
        /// The node has children.
        NotEmpty = -111,
        /// The session is no more.
        SessionExpired = -112,
        /// An ACL that no provider accepts.
        InvalidAcl = -114,
        /// Authentication failed.
        AuthFailed = -115,
        /// The session now lives on another connection.
        SessionMoved = -118,
        /// A write to a read-only server.
        NotReadOnly = -119,
        /// Local sessions have no ephemerals.
        EphemeralOnLocalSession = -120,
        /// No such watch.
        NoWatcher = -121,
        /// `reconfigEnabled` is off.
        ReconfigDisabled = -123,
        /// Connection must authenticate by SASL first.
        SessionClosedRequireSaslAuth = -124,
        /// Hard quota reached.
        QuotaExceeded = -125,
        /// Waited too long in the queue.
        ThrottledOp = -127,
    }
}

impl OpCode {
    /// True for requests that change replicated state, and so go through the log.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(
            self,
            OpCode::Create
                | OpCode::Create2
                | OpCode::CreateContainer
                | OpCode::CreateTtl
                | OpCode::Delete
                | OpCode::DeleteContainer
                | OpCode::SetData
                | OpCode::SetAcl
                | OpCode::Multi
                | OpCode::Reconfig
                | OpCode::CreateSession
                | OpCode::CloseSession
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for n in -200..200 {
            if let Some(op) = OpCode::from_i32(n) {
                assert_eq!(op.to_i32(), n);
            }
            if let Some(code) = ErrorCode::from_i32(n) {
                assert_eq!(code.to_i32(), n);
            }
        }
        assert_eq!(OpCode::from_i32(10), None);
    }
}
