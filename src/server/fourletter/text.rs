//! Output with a bound, and the few formats of Java's that ZooKeeper's texts contain.

use std::fmt::{Arguments, Write as _};
use std::ops::ControlFlow;

/// Text appended to a buffer until a bound is reached; then one line says so and nothing more goes in.
pub(crate) struct Text<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    cut: bool,
}

/// Room for the few lines that follow a list which was cut.
const TAIL_BYTES: usize = 4_096;

impl Text<'_> {
    pub(super) fn new(out: &mut Vec<u8>, bytes_max: usize) -> Text<'_> {
        let end = out.len() + bytes_max;
        Text { out, end, cut: false }
    }

    /// Appends without a newline.
    pub(super) fn put(&mut self, args: Arguments<'_>) {
        if !self.cut {
            let start = self.out.len();
            write!(Sink(self.out), "{args}").expect("a Vec takes everything");
            self.check(start);
        }
    }

    /// Appends with a newline.
    pub(super) fn line(&mut self, args: Arguments<'_>) {
        self.put(args);
        self.put(format_args!("\n"));
    }

    fn check(&mut self, start: usize) {
        if self.out.len() > self.end {
            // Cut at the start of a line, so that whoever parses lines sees whole ones.
            let line = self.out[..start].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            self.out.truncate(line);
            self.out.extend_from_slice(b"(cut here: the answer would be too long)\n");
            self.cut = true;
        }
    }

    /// Tells a visitor to go on, or to stop because nothing more would be kept.
    pub(super) const fn flow(&self) -> ControlFlow<()> {
        if self.cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Lets a few more lines in after a list, whether it was cut or not.
    pub(super) fn reserve_tail(&mut self) {
        self.end = self.out.len().max(self.end) + TAIL_BYTES;
        self.cut = false;
    }
}

struct Sink<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Sink<'_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

/// `Double.toString`: plain from 10^-3 up to 10^7, otherwise with an exponent; always with a digit behind the point.
pub(super) fn java_double(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() || (1e-3..1e7).contains(&size) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    let (digits, exponent) = text.split_once('E').expect("the format puts an E");
    let point = if digits.contains('.') { "" } else { ".0" };
    format!("{digits}{point}E{exponent}")
}

/// `Date.toString` in UTC: `Sat Nov 21 09:31:12 UTC 2026`.
pub(super) fn java_date(ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = ms.div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let weekday = DAYS[days.rem_euclid(7) as usize];
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{weekday} {} {day:02} {h:02}:{m:02}:{s:02} UTC {year}", MONTHS[month - 1])
}

/// `2026-11-21T09:31:12.000Z`.
pub(crate) fn utc(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms.rem_euclid(1_000))
}

/// Year, month from 1, day from 1 of a day counted from 1970 (Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, usize, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month as usize, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_javas() {
        for (value, want) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.25, "0.25"),
            (12.3457, "12.3457"),
            (0.001, "0.001"),
            (0.0001, "1.0E-4"),
            (0.00015, "1.5E-4"),
            (9_999_999.5, "9999999.5"),
            (1e7, "1.0E7"),
            (12_345_678.5, "1.23456785E7"),
            (-1e8, "-1.0E8"),
        ] {
            assert_eq!(java_double(value), want);
        }
    }

    #[test]
    fn dates_are_javas() {
        assert_eq!(java_date(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(java_date(951_827_696_000), "Tue Feb 29 12:34:56 UTC 2000");
        assert_eq!(java_date(1_795_253_472_999), "Sat Nov 21 09:31:12 UTC 2026");
        assert_eq!(utc(1_795_253_472_999), "2026-11-21T09:31:12.999Z");
        // Any number may stand in a damaged record.
        assert!(utc(i64::MIN).ends_with('Z') && utc(i64::MAX).ends_with('Z'));
        assert_eq!(java_date(-1), "Wed Dec 31 23:59:59 UTC 1969");
    }

    #[test]
    fn what_would_be_too_long_is_cut_at_a_line_and_says_so() {
        let mut out = b"kept\n".to_vec();
        let mut text = Text::new(&mut out, 10);
        text.line(format_args!("one"));
        assert!(text.flow().is_continue());
        text.put(format_args!("two"));
        text.line(format_args!("four"));
        assert!(text.flow().is_break());
        text.line(format_args!("never"));
        text.reserve_tail();
        text.line(format_args!("tail"));
        let want = "kept\none\n(cut here: the answer would be too long)\ntail\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
