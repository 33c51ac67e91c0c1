//! What a crash leaves behind is a sequence of choices ("which version of this sector?"); a chooser makes them.

use crate::base::rng::Rng;

/// Makes the choices that turn a crashed disk into an image. Option 0 is always "the crash took it", the last option
/// "it reached the disk", options between are older unsynced versions.
pub trait Choose {
    /// A number below `options`, which is at least 1.
    fn choose(&mut self, options: usize) -> usize;
}

/// Nothing that was not synced reached the disk.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Choose for Nothing {
    fn choose(&mut self, _options: usize) -> usize {
        0
    }
}

/// Everything reached the disk, synced or not: what a killed process leaves behind.
#[derive(Clone, Copy, Debug)]
pub struct Everything;

impl Choose for Everything {
    fn choose(&mut self, options: usize) -> usize {
        options - 1
    }
}

/// Any subset, from a seed. The share that survives differs from image to image, so that "nearly all" and "nearly nothing"
/// are met as often as "half".
#[derive(Clone, Debug)]
pub struct Random {
    rng: Rng,
    survive_of_16: u64,
}

impl Random {
    /// The image that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        let mut rng = Rng::new(seed);
        let survive_of_16 = [1, 4, 8, 8, 12, 15][rng.below(6) as usize];
        Random { rng, survive_of_16 }
    }
}

impl Choose for Random {
    fn choose(&mut self, options: usize) -> usize {
        if options > 2 && self.rng.one_in(3) {
            return self.rng.below(options as u64) as usize;
        }
        if self.rng.below(16) < self.survive_of_16 { options - 1 } else { 0 }
    }
}

/// Every combination of choices, one image after the other, as an odometer counts.
///
/// ```text
/// let mut all = Exhaustive::new();
/// while all.next_case() { let image = disk.after_crash(&mut all); … }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Exhaustive {
    /// (chosen, options) of each choice of the current case, in the order they are asked for.
    digits: Vec<(usize, usize)>,
    at: usize,
    started: bool,
}

impl Exhaustive {
    /// Before the first case.
    #[must_use]
    pub fn new() -> Exhaustive {
        Exhaustive::default()
    }

    /// Moves to the next case; false when all have been seen.
    pub fn next_case(&mut self) -> bool {
        self.at = 0;
        if !std::mem::replace(&mut self.started, true) {
            return true;
        }
        while let Some((chosen, options)) = self.digits.pop() {
            if chosen + 1 < options {
                self.digits.push((chosen + 1, options));
                return true;
            }
        }
        false
    }
}

impl Choose for Exhaustive {
    fn choose(&mut self, options: usize) -> usize {
        assert!(options > 0 && self.started, "next_case() comes first");
        if self.at == self.digits.len() {
            self.digits.push((0, options));
        }
        let (chosen, expected) = self.digits[self.at];
        assert_eq!(options, expected, "the same earlier choices must lead to the same question");
        self.at += 1;
        chosen
    }
}
