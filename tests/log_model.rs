//! The log against a list, over random programs with crashes: every acknowledged record present and byte-equal, nothing
//! invented, nothing out of order, what is there a prefix of what was appended (invariants I1, I2 of `storage::log`).

use proptest::prelude::*;
use zabra::base::rng::Rng;
use zabra::testing::fuzz_log;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_agree_with_the_model(program in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_log::log_ops(&program);
    }

    #[test]
    fn arbitrary_files_never_panic(data in proptest::collection::vec(any::<u8>(), 0..9000)) {
        fuzz_log::log_open(&data);
    }
}

/// The same from fixed seeds, so that every run has met the same programs.
#[test]
fn fixed_seeds_agree_with_the_model() {
    for seed in 0..1500 {
        let mut program = vec![0; 240];
        Rng::new(seed).fill(&mut program);
        let outcome = std::panic::catch_unwind(|| fuzz_log::log_ops(&program));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn fixed_seeds_of_arbitrary_files_never_panic() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let mut data = vec![0; 1 + rng.below(20_000) as usize];
        rng.fill(&mut data);
        // Small fields are met more often than random ones.
        for byte in &mut data[1..] {
            *byte = if *byte < 160 { 0 } else { *byte & 3 };
        }
        fuzz_log::log_open(&data);
    }
}
