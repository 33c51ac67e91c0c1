//! Fuzz entry point of the wire: decoding never panics, and what decodes encodes to what decodes to the same.

use crate::wire::OpCode;
use crate::wire::jute::Reader;
use crate::wire::request::{ConnectRequest, Request};
use crate::wire::txn::{Proposal, Txn};

/// The first byte chooses an operation number; the rest is the record.
pub fn jute(data: &[u8]) {
    let Some((op, body)) = data.split_first() else { return };
    let _ = ConnectRequest::read(body);
    if let Some(op) = OpCode::from_i32(i32::from(*op as i8)) {
        walk(&Request::read(op, body));
    }
    if let Ok(proposal) = Proposal::read(body) {
        let mut again = Vec::new();
        proposal.txn.put(&mut again);
        let back =
            Txn::read(proposal.header.kind, &mut Reader::new(&again)).expect("what was written can be read");
        // A null path list and an empty one mean the same and may change into each other's form; everything else is kept.
        if !matches!(back, Txn::CloseSession { .. }) {
            assert_eq!(back, proposal.txn);
        }
    }
}

fn walk(request: &Result<Request<'_>, crate::wire::jute::JuteError>) {
    match request {
        Ok(Request::Multi(ops) | Request::MultiRead(ops)) => assert_eq!(ops.iter().count(), ops.len()),
        Ok(Request::Create(create)) => assert_eq!(create.acl.iter().count(), create.acl.len()),
        Ok(Request::SetWatches(watches)) => assert_eq!(watches.data.iter().count(), watches.data.len()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::base::rng::Rng;
    use crate::testing::fuzz::fill_plausibly;

    #[test]
    fn random_and_mutated_bytes() {
        let mut rng = Rng::new(0x6a75_7465);
        let mut bytes = [0u8; 64];
        for _ in 0..200_000 {
            fill_plausibly(&mut rng, &mut bytes);
            let len = rng.below(bytes.len() as u64 + 1) as usize;
            super::jute(&bytes[..len]);
        }
    }
}
