//! What servers say about a name, and which of it is taken. No clock, no network.

use core::cmp::Ordering;
use core::time::Duration;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use schema::{LookupFamily, Reach};
use serde::{Deserialize, Serialize};

/// Refused addresses that are shown at most.
const SHOWN: usize = 4;

/// One address that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resolved {
    /// The address.
    pub address: IpAddr,
    /// What an SRV record says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
}

/// What an SRV record says of one of its target's addresses (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    /// Those of a lower one come first.
    pub priority: u16,
    /// The target's name.
    pub target: String,
    /// Its port.
    pub port: u16,
    /// The target's share among those of the same priority.
    pub weight: u16,
}

impl Resolved {
    /// The order in which addresses are listed: by SRV's priority and target, IPv4 before IPv6, by number.
    fn order(&self, other: &Self) -> Ordering {
        self.service.cmp(&other.service).then_with(|| self.address.cmp(&other.address))
    }

    /// The address, with its port where it has one of its own.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.service {
            Some(service) => SocketAddr::new(self.address, service.port).to_string(),
            None => self.address.to_string(),
        }
    }
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// These records, which may be kept for so long. A part of the question may have failed, in words.
    Records(Vec<T>, Duration, Option<Failure>),
    /// There is nothing, which may be believed for so long.
    Absent(Absence, Duration),
    /// Nobody knows.
    Failed(Failure),
}

/// How servers say that there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// NXDOMAIN: the name does not exist.
    Name,
    /// It has no record of the kinds that were asked for.
    Records,
    /// An SRV record with the target `.`: the service is not offered.
    Service,
}

impl Absence {
    pub(super) fn token(self) -> &'static str {
        match self {
            Self::Name => "nxdomain",
            Self::Records | Self::Service => "nodata",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Name => "the name does not exist (NXDOMAIN)",
            Self::Records => "the name has no such records",
            Self::Service => "the service is not offered there (SRV target \".\")",
        }
    }
}

/// Why nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No server answered in time.
    Timeout,
    /// A server could not find out.
    ServFail,
    /// A server does not answer us.
    Refused,
    /// None of the addresses can be used; why not.
    Unusable(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    pub(super) fn token(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ServFail => "servfail",
            Self::Refused => "refused",
            Self::Unusable(_) => "unusable",
            Self::Other(_) => "error",
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Timeout => "no server answered in time".to_owned(),
            Self::ServFail => "the server could not find out (SERVFAIL)".to_owned(),
            Self::Refused => "the server refuses to answer (REFUSED)".to_owned(),
            Self::Unusable(why) | Self::Other(why) => why.clone(),
        }
    }
}

/// What the questions for A and for AAAA records come to together. Where one of them failed, what was known of that family before, `held`, counts on.
pub(super) fn both(v4: Outcome<IpAddr>, v6: Outcome<IpAddr>, held: &[IpAddr]) -> Outcome<IpAddr> {
    use Outcome::{Absent, Failed, Records};
    match (v4, v6) {
        (Records(mut all, a, first), Records(more, b, second)) => {
            all.extend(more);
            Records(all, a.min(b), first.or(second))
        }
        (Records(all, ttl, _), Failed(failure)) => {
            Records(all.into_iter().chain(held.iter().copied().filter(IpAddr::is_ipv6)).collect(), ttl, Some(failure))
        }
        (Failed(failure), Records(all, ttl, _)) => {
            Records(held.iter().copied().filter(IpAddr::is_ipv4).chain(all).collect(), ttl, Some(failure))
        }
        (records @ Records(..), Absent(..)) | (Absent(..), records @ Records(..)) => records,
        (Absent(a, first), Absent(b, second)) => Absent(if a == Absence::Name { a } else { b }, first.min(second)),
        (Failed(failure), _) | (_, Failed(failure)) => Failed(failure),
    }
}

/// What is taken of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// In order.
    pub(super) addresses: Vec<Resolved>,
    /// Addresses that cannot be used, the first of them in words.
    pub(super) refused: Vec<String>,
    /// How many those are.
    pub(super) refused_count: usize,
    /// Addresses beyond the limit.
    pub(super) surplus: usize,
}

/// Takes what can be used of `found`: what the appliance reaches, of the family that is wanted, at most `limit` of them and rather those that were `held`.
pub(super) fn take(
    found: Vec<Resolved>,
    held: &[Resolved],
    family: LookupFamily,
    reach: &Reach,
    limit: usize,
) -> Taken {
    let mut taken = Taken::default();
    let mut seen = HashSet::new();
    for resolved in found {
        if !seen.insert((resolved.address, resolved.service.as_ref().map(|service| service.port))) {
            continue;
        }
        let refusal = match &resolved.service {
            Some(service) => reach.refusal_at(SocketAddr::new(resolved.address, service.port)),
            None => reach.refusal(resolved.address),
        };
        match refusal {
            None => taken.addresses.push(resolved),
            Some(why) => {
                taken.refused_count += 1;
                if taken.refused.len() < SHOWN {
                    taken.refused.push(format!("{} is {why}", resolved.text()));
                }
            }
        }
    }
    let preferred: Option<fn(&IpAddr) -> bool> = match family {
        LookupFamily::Ipv4Preferred => Some(IpAddr::is_ipv4),
        LookupFamily::Ipv6Preferred => Some(IpAddr::is_ipv6),
        LookupFamily::Ipv4AndIpv6 | LookupFamily::Ipv4 | LookupFamily::Ipv6 => None,
    };
    if let Some(preferred) = preferred
        && taken.addresses.iter().any(|resolved| preferred(&resolved.address))
    {
        taken.addresses.retain(|resolved| preferred(&resolved.address));
    }
    taken.surplus = taken.addresses.len().saturating_sub(limit);
    if taken.surplus > 0 {
        let held: HashSet<&Resolved> = held.iter().collect();
        taken.addresses.sort_by(|a, b| held.contains(b).cmp(&held.contains(a)).then_with(|| a.order(b)));
        taken.addresses.truncate(limit);
    }
    taken.addresses.sort_by(Resolved::order);
    taken
}

/// Weights and ranks of addresses, in their order: how SRV's priorities and weights become ours. Of `fallback`, the weight, where there is no SRV record.
///
/// Priorities count by their rank, from 0. A target's weight is shared by its addresses; to keep that whole, all weights are multiplied by
/// what their numbers of addresses have in common, 12 at most. "Records with weight 0 should have a very small chance of being selected"
/// (RFC 2782): a hundredth of weight 1, where there are others.
pub(crate) fn weights(addresses: &[Resolved], fallback: u32) -> Vec<(u8, u32)> {
    const MOST_COMMON: u32 = 12;
    const SMALL: u32 = 100;
    const LARGEST: u32 = 1_000_000;
    let mut priorities: Vec<u16> = addresses.iter().filter_map(|a| Some(a.service.as_ref()?.priority)).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let of_target = |service: &Service| {
        let same = addresses.iter().filter_map(|a| a.service.as_ref()).filter(|other| *other == service);
        u32::try_from(same.count().max(1)).unwrap_or(u32::MAX)
    };
    let common = addresses.iter().filter_map(|a| a.service.as_ref()).map(of_target).fold(1, least_common_multiple);
    let common = common.min(MOST_COMMON);
    let result = addresses.iter().map(|resolved| {
        let Some(service) = &resolved.service else { return (0, fallback) };
        let rank = priorities.binary_search(&service.priority).unwrap_or_default();
        let level = || addresses.iter().filter_map(|a| a.service.as_ref()).filter(|s| s.priority == service.priority);
        let largest = level().map(|s| u32::from(s.weight)).max().unwrap_or_default();
        let mixed = largest > 0 && level().any(|s| s.weight == 0);
        let scale = if mixed { (LARGEST / (largest * common)).clamp(1, SMALL) } else { 1 };
        let weight = match (largest, service.weight) {
            (0, _) => common / of_target(service),
            (_, 0) => 1,
            (_, weight) => u32::from(weight) * common * scale / of_target(service),
        };
        (u8::try_from(rank).unwrap_or(u8::MAX), weight.max(1))
    });
    result.collect()
}

fn least_common_multiple(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    // Both are at least 1, so x is.
    (a / x.max(1)).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn plain(text: &str) -> Resolved {
        Resolved { address: ip(text), service: None }
    }

    fn service(address: &str, priority: u16, weight: u16, target: &str) -> Resolved {
        let service = Service { priority, target: target.to_owned(), port: 80, weight };
        Resolved { address: ip(address), service: Some(service) }
    }

    fn reach() -> Reach {
        let text = "apiVersion: millrace.dev/v1alpha1\nkind: Appliance\nmetadata: { name: edge }\nspec:\n  cores: [0]\n  \
                    ports: [{ name: north, device: net_null0, addresses: [10.9.1.1/24, \"fd00::1/64\"],\n    \
                    exception: { interface: mr-k, tcp: [22] } }]\n";
        Reach::new(&schema::load_str("test", text).unwrap().appliance.spec)
    }

    #[test]
    fn a_family_that_fails_keeps_what_it_had() {
        let (v4, v6) = (ip("10.9.1.2"), ip("fd00::2"));
        let records = |all: &[IpAddr]| Outcome::Records(all.to_vec(), TTL, None);
        let failed = || Outcome::Failed(Failure::Timeout);
        let absent = |absence| Outcome::Absent(absence, TTL / 2);
        assert_eq!(both(records(&[v4]), records(&[v6]), &[]), records(&[v4, v6]));
        let partly = |all: &[IpAddr]| Outcome::Records(all.to_vec(), TTL, Some(Failure::Timeout));
        assert_eq!(both(records(&[v4]), failed(), &[v4, v6]), partly(&[v4, v6]));
        assert_eq!(both(failed(), records(&[v6]), &[v4, v6]), partly(&[v4, v6]));
        assert_eq!(both(records(&[v4]), absent(Absence::Records), &[v6]), records(&[v4]), "absent is an answer");
        assert_eq!(both(absent(Absence::Records), absent(Absence::Name), &[]), absent(Absence::Name));
        assert_eq!(both(absent(Absence::Name), failed(), &[v6]), failed(), "half of nothing is not nothing");
    }

    #[test]
    fn only_what_a_port_reaches_is_taken() {
        let bad =
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "10.9.1.1", "10.9.2.2", "::", "::1"];
        let bad = bad.iter().chain(&["ff02::1", "::ffff:10.9.1.2", "fe80::1", "fd00::1", "fd01::1"]);
        let found: Vec<Resolved> =
            bad.chain(&["10.9.1.3", "fd00::2", "10.9.1.2", "10.9.1.3"]).map(|a| plain(a)).collect();
        let taken = take(found.clone(), &[], LookupFamily::Ipv4AndIpv6, &reach(), 64);
        assert_eq!(taken.addresses, ["10.9.1.2", "10.9.1.3", "fd00::2"].map(plain));
        assert_eq!((taken.refused_count, taken.refused.len(), taken.surplus), (14, SHOWN, 0));
        assert_eq!(taken.refused[0], "0.0.0.0 is an address of no host");
        let of = |family| take(found.clone(), &[], family, &reach(), 64).addresses;
        assert_eq!(of(LookupFamily::Ipv4Preferred), ["10.9.1.2", "10.9.1.3"].map(plain));
        assert_eq!(of(LookupFamily::Ipv6Preferred), ["fd00::2"].map(plain));
        let at = |port| Resolved {
            service: Some(Service { port, ..service("10.9.1.2", 0, 1, "a").service.unwrap() }),
            ..plain("10.9.1.2")
        };
        let taken = take(vec![at(22), at(81)], &[], LookupFamily::Ipv4, &reach(), 64);
        assert_eq!((taken.addresses, taken.refused_count), (vec![at(81)], 1));
        assert_eq!(taken.refused[0], "10.9.1.2:22 is at a port that an exception gives to the kernel");
        let v4 = take(vec![plain("10.9.1.2"), plain("fd01::9")], &[], LookupFamily::Ipv6Preferred, &reach(), 64);
        assert_eq!(v4.addresses, [plain("10.9.1.2")], "an address out of reach is no preference");
    }

    #[test]
    fn beyond_the_limit_those_that_were_there_stay() {
        let found: Vec<Resolved> = (2..100).map(|n| plain(&format!("10.9.1.{n}"))).collect();
        let first = take(found.clone(), &[], LookupFamily::Ipv4, &reach(), 3);
        assert_eq!((first.addresses.len(), first.surplus), (3, 95));
        let held = ["10.9.1.50", "10.9.1.60"].map(plain);
        let taken = take(found, &held, LookupFamily::Ipv4, &reach(), 3).addresses;
        assert_eq!(taken, ["10.9.1.2", "10.9.1.50", "10.9.1.60"].map(plain));
    }

    #[test]
    fn srv_priorities_are_ranks_and_weights_are_shared_by_a_targets_addresses() {
        let one = |list: &[Resolved]| weights(list, 7);
        assert_eq!(one(&[plain("10.9.1.2")]), [(0, 7)]);
        let all = [service("10.9.1.2", 10, 3, "a"), service("10.9.1.3", 10, 1, "b"), service("10.9.1.4", 20, 0, "c")];
        assert_eq!(one(&all), [(0, 3), (0, 1), (1, 1)]);
        // a has two addresses, which share its weight.
        let all = [service("10.9.1.2", 0, 3, "a"), service("10.9.1.3", 0, 3, "a"), service("10.9.1.4", 0, 1, "b")];
        assert_eq!(one(&all), [(0, 3), (0, 3), (0, 2)]);
        // A weight of 0 among others is a very small chance, and among equals an even one.
        let all = [service("10.9.1.2", 0, 1, "a"), service("10.9.1.3", 0, 0, "b")];
        assert_eq!(one(&all), [(0, 100), (0, 1)]);
        let all = [service("10.9.1.2", 0, 65_535, "a"), service("10.9.1.3", 0, 0, "b")];
        assert_eq!(one(&all), [(0, 65_535 * 15), (0, 1)]);
        let all = [service("10.9.1.2", 0, 0, "a"), service("10.9.1.3", 0, 0, "b"), service("10.9.1.4", 0, 0, "b")];
        assert_eq!(one(&all), [(0, 2), (0, 1), (0, 1)]);
    }
}
