//! The session password: what `java.util.Random` makes of the session id. Every server can recompute it; it is a checksum
//! against mixed-up ids, not a secret.

use crate::base::SessionId;

/// Bytes of a password.
pub const PASSWORD_BYTES: usize = 16;

/// What a refused client gets.
pub const ZERO_PASSWORD: [u8; PASSWORD_BYTES] = [0; PASSWORD_BYTES];

/// Mixed into the id by every ZooKeeper server (`superSecret`).
const SALT: i64 = 0xB341_5C00;

/// The password of `session`.
#[must_use]
pub fn password(session: SessionId) -> [u8; PASSWORD_BYTES] {
    let mut random = JavaRandom::new(session.0 ^ SALT);
    let mut out = ZERO_PASSWORD;
    for chunk in out.chunks_exact_mut(4) {
        chunk.copy_from_slice(&random.next_int().to_le_bytes());
    }
    out
}

/// True when `given` is the password of `session`; session 0 has none.
#[must_use]
pub fn password_matches(session: SessionId, given: &[u8]) -> bool {
    session.0 != 0 && given == password(session)
}

/// The 48-bit linear congruential generator that the documentation of `java.util.Random` prescribes.
struct JavaRandom {
    seed: u64,
}

impl JavaRandom {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;

    const fn new(seed: i64) -> JavaRandom {
        JavaRandom { seed: (seed as u64 ^ Self::MULTIPLIER) & Self::MASK }
    }

    const fn next_int(&mut self) -> i32 {
        self.seed = (self.seed.wrapping_mul(Self::MULTIPLIER).wrapping_add(0xB)) & Self::MASK;
        (self.seed >> 16) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_yields_what_java_yields() {
        // new java.util.Random(42).nextInt(), four times.
        let mut random = JavaRandom::new(42);
        let ints: Vec<_> = (0..4).map(|_| random.next_int()).collect();
        assert_eq!(ints, [-1_170_105_035, 234_785_527, -1_360_544_799, 205_897_768]);
    }

    #[test]
    fn a_password_is_the_bytes_of_the_generator_lowest_first() {
        // Session whose salted id is 42: nextBytes puts the lowest byte of each int first.
        let session = SessionId(42 ^ SALT);
        assert_eq!(password(session)[..4], (-1_170_105_035i32).to_le_bytes());
        assert!(password_matches(session, &password(session)));
        assert!(!password_matches(session, &ZERO_PASSWORD));
        assert!(!password_matches(session, &password(session)[..15]));
        assert!(!password_matches(SessionId(0), &password(SessionId(0))), "session 0 is nobody's");
    }
}
