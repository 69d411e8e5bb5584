//! `metadata`, of which every object has one (Kubernetes `ObjectMeta`).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::name::{Name, ObjectName};

/// Who an object is. Fields of `ObjectMeta` that only a cluster writes are accepted and dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Namespace (`default` if not given) and name.
    #[serde(flatten)]
    pub object: ObjectName,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When a cluster created it. Of two routes with the same match the older wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
}

impl Metadata {
    /// The name without its namespace.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.object.name
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Name {
        &self.object.namespace
    }
}

/// A point in time, in seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Reads the RFC 3339 form that Kubernetes writes, `2026-01-31T12:00:00Z`. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('Z')?;
        let (date, time) = text.split_once('T')?;
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let days_in_month = match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let in_range =
            (1..=12).contains(&month) && (1..=days_in_month).contains(&day) && hour < 24 && minute < 60 && second <= 60;
        if !in_range {
            return None;
        }
        // Days of the civil calendar, counted from a March that starts a year of 365.2425 days, so
        // that the leap day is a year's last.
        let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days =
            y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 719_469;
        Some(Timestamp(days * 86_400 + hour * 3_600 + minute * 60 + second))
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0
    }
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut out = [0; 3];
    for (slot, width) in out.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_count_from_the_epoch() {
        let seconds = |text| Timestamp::parse(text).map(Timestamp::seconds);
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(seconds("2026-07-26T00:00:00Z"), Some(1_785_024_000));
        for bad in ["", "2026-07-26", "2026-02-29T00:00:00Z", "2026-7-26T00:00:00Z", "2026-07-26T24:00:00Z"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
