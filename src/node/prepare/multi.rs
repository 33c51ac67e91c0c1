//! multi: several operations, one transaction.

use super::{Context, Prepare, Scratch, Sessions};
use crate::wire::request::MultiOps;
use crate::wire::txn::{MultiWriter, Txn, kind};
use crate::wire::{ErrorCode, OpCode};

impl Prepare {
    /// Each operation sees those before it. When one fails, all changes are taken back, its part becomes its error, those
    /// behind it become -2, and the multi is logged all the same. Only what no error of a part can say fails as a whole.
    pub(super) fn multi<S: Sessions>(
        &mut self,
        ctx: &Context<'_, S>,
        scratch: &mut Scratch,
        ops: MultiOps<'_>,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        let digest_before = self.digest;
        let mut writer = MultiWriter::begin(out);
        let mut failed = false;
        for (op, request) in ops.iter() {
            if failed {
                put_error(&mut writer, out, ErrorCode::RuntimeInconsistency);
                self.check_size(start, out)?;
                continue;
            }
            match self.single(ctx, scratch, op, &request) {
                Ok(txn) => writer.put(out, op.to_i32(), &txn),
                Err(ErrorCode::MarshallingError) => return Err(ErrorCode::MarshallingError),
                Err(err) => {
                    failed = true;
                    self.overlay.rollback(ctx.tree);
                    self.digest = digest_before;
                    put_error(&mut writer, out, err);
                }
            }
            self.check_size(start, out)?;
        }
        self.check_size(start, out)
    }
}

fn put_error(writer: &mut MultiWriter, out: &mut Vec<u8>, err: ErrorCode) {
    debug_assert_eq!(kind::ERROR, OpCode::Error.to_i32());
    writer.put(out, kind::ERROR, &Txn::Error { err: err.to_i32() });
}
