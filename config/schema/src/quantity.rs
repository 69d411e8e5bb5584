//! Durations and sizes as they are written in YAML.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

impl ByteSize {
    /// `bytes` bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        ByteSize(bytes)
    }

    /// `kibibytes` times 1,024 bytes.
    #[must_use]
    pub const fn kib(kibibytes: u32) -> Self {
        ByteSize((kibibytes as u64) << 10)
    }

    /// Reads `65536`, `64KiB`, `1MiB`, `1GiB`, or with Kubernetes' suffixes `Ki`, `Mi`, `Gi`; and the
    /// decimal `kB`, `MB`, `GB`. `None` for anything else, and for what does not fit 64 bits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits)?;
        let factor: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" | "Ki" => 1 << 10,
            "MiB" | "Mi" => 1 << 20,
            "GiB" | "Gi" => 1 << 30,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(ByteSize)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0B"),
            n if n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}B"),
        }
    }
}

/// A duration where `0s` means that there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timeout {
    /// Never (`0s`).
    Never,
    /// After this time, which is not zero.
    After(Duration),
}

impl Timeout {
    /// The time, if there is a limit.
    #[must_use]
    pub const fn limit(self) -> Option<Duration> {
        match self {
            Timeout::Never => None,
            Timeout::After(duration) => Some(duration),
        }
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Self {
        if duration.is_zero() { Timeout::Never } else { Timeout::After(duration) }
    }
}

impl Serialize for Timeout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&DurationText(self.limit().unwrap_or_default()))
    }
}

/// Reads a duration in the Gateway API's format (GEP-2257): one to four times a number of one to five
/// digits and a unit out of `h`, `m`, `s`, `ms`, with no sign, fraction or space. `None` for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return None;
        }
        let (number, after) = rest.split_at_checked(digits)?;
        let number: u32 = number.parse().ok()?;
        let (unit, after) =
            ["ms", "h", "m", "s"].into_iter().find_map(|unit| Some((unit, after.strip_prefix(unit)?)))?;
        total += number
            * match unit {
                "ms" => Duration::from_millis(1),
                "s" => Duration::from_secs(1),
                "m" => Duration::from_secs(60),
                _ => Duration::from_secs(3_600),
            };
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
    None
}

/// Writes a duration in the format that [`parse_duration`] reads, for `#[serde(serialize_with)]`.
pub(crate) fn serialize_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&DurationText(*duration))
}

/// A duration in the format that [`parse_duration`] reads.
pub(crate) struct DurationText(pub(crate) Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, milliseconds) = (self.0.as_secs(), self.0.subsec_millis());
        let parts =
            [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (u64::from(milliseconds), "ms")];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        if self.0.as_millis() == 0 {
            f.write_str("0s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gep_2257() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("10s", 10_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1h2m3s4ms", 3_723_004),
            ("99999h", 359_996_400_000),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
        }
        for bad in ["", "10", "s", "1.5s", "-1s", "10 s", "100000s", "1d", "1s2s3s4s5s", "1us", "1sé"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for text in ["0s", "1m30s", "1h2m3s4ms", "500ms"] {
            assert_eq!(DurationText(parse_duration(text).unwrap()).to_string(), text);
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("64Ki", 65_536),
            ("1 MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("1kB", 1_000),
        ] {
            assert_eq!(ByteSize::parse(text), Some(ByteSize::new(bytes)), "{text}");
        }
        for bad in ["", "KiB", "1.5KiB", "-1", "1KB", "99999999999GiB", "1é"] {
            assert_eq!(ByteSize::parse(bad), None, "{bad}");
        }
        assert_eq!(ByteSize::kib(64).to_string(), "64KiB");
        assert_eq!(ByteSize::new(1).to_string(), "1B");
    }
}
