//! Who of a cluster takes requests at present, and by what they are chosen.
//!
//! Control works a selection out whenever something about a cluster's endpoints changes: priorities, zones, slow start and panic are
//! weights by the time it gets here. Cores only look things up.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

use crate::cluster::Endpoint;
use crate::consistent::{Maglev, Ring};
use crate::schedule::Schedule;
use crate::weighted::Weighted;

/// Who takes requests. Immutable.
#[derive(Debug, PartialEq, Eq)]
pub struct Selection {
    /// Those who take requests, and behind them those who only keep their sessions.
    members: Box<[Endpoint]>,
    chooser: Chooser,
    sessions: Option<Box<Sessions>>,
}

/// By what a member is chosen.
#[derive(Debug, PartialEq, Eq)]
pub enum Chooser {
    /// Nobody takes requests.
    Nobody,
    /// They take turns.
    RoundRobin(Schedule),
    /// By chance.
    Random(Weighted),
    /// Of two by chance the one with fewer requests under way, for its weight (Mitzenmacher 2001).
    LeastRequest(Weighted),
    /// Of two by chance the one with the lower product of recent latency and requests under way.
    PeakEwma(Weighted),
    /// By a hash of the request.
    Hashed(HashTable),
}

/// From a hash to a member.
#[derive(Debug, PartialEq, Eq)]
pub enum HashTable {
    /// The remainder: cheap, and nearly everything moves when members change.
    Modulo(Schedule),
    /// Maglev's table.
    Maglev(Maglev),
    /// A ring. In a box, so that what others choose by stays small.
    Ring(Box<Ring>),
}

/// The kinds of choosers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// [`Chooser::RoundRobin`].
    RoundRobin,
    /// [`Chooser::Random`].
    Random,
    /// [`Chooser::LeastRequest`].
    LeastRequest,
    /// [`Chooser::PeakEwma`].
    PeakEwma,
    /// [`HashTable::Modulo`].
    Modulo,
    /// [`HashTable::Maglev`], whose members lie by this seed.
    Maglev(u64),
    /// [`HashTable::Ring`], whose members lie by this seed, with so many places at least and at most.
    Ring(u64, u32, u32),
}

/// Which cookie names which member.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// By member.
    tags: Box<[u64]>,
    /// Tags with their members, in order of the tags.
    by_tag: Box<[(u64, u32)]>,
}

impl Selection {
    /// By what a member is chosen, in Envoy's words.
    #[must_use]
    pub fn policy_name(&self) -> &'static str {
        match &self.chooser {
            Chooser::Nobody => "nobody takes requests",
            Chooser::RoundRobin(_) => "round robin",
            Chooser::Random(_) => "random",
            Chooser::LeastRequest(_) => "least request",
            Chooser::PeakEwma(_) => "peak EWMA",
            Chooser::Hashed(HashTable::Modulo(_)) => "source IP hash",
            Chooser::Hashed(HashTable::Maglev(_)) => "Maglev",
            Chooser::Hashed(HashTable::Ring(_)) => "ring hash",
        }
    }

    /// `members` of weight 0 are left out.
    #[must_use]
    pub fn new(method: Method, members: Vec<Endpoint>) -> Self {
        let members: Vec<Endpoint> = members.into_iter().filter(|member| member.weight > 0).collect();
        let chooser = if members.is_empty() { Chooser::Nobody } else { Chooser::new(method, &members) };
        Self { members: members.into(), chooser, sessions: None }
    }

    /// Members that take turns by their weights.
    #[must_use]
    pub fn round_robin(members: Vec<Endpoint>) -> Self {
        Self::new(Method::RoundRobin, members)
    }

    /// The same where cookies name members, by tags under `key`: those that take requests, and `others` that only keep their sessions.
    #[must_use]
    pub fn with_sessions(mut self, key: [u64; 2], scope: &str, others: Vec<Endpoint>) -> Self {
        let mut members = self.members.into_vec();
        members.extend(others);
        let tags: Box<[u64]> = members.iter().map(|member| session_tag(key, scope, member.address)).collect();
        let mut by_tag: Vec<(u64, u32)> = tags.iter().copied().zip(0..).collect();
        by_tag.sort_unstable();
        self.members = members.into();
        self.sessions = Some(Box::new(Sessions { tags, by_tag: by_tag.into() }));
        self
    }

    /// Those who take requests, and behind them those who only keep their sessions.
    #[must_use]
    pub fn members(&self) -> &[Endpoint] {
        &self.members
    }

    /// By what they are chosen.
    #[inline]
    #[must_use]
    pub fn chooser(&self) -> &Chooser {
        &self.chooser
    }

    /// Which cookie names which member; `None` where none does.
    #[inline]
    #[must_use]
    pub fn sessions(&self) -> Option<&Sessions> {
        self.sessions.as_deref()
    }

    /// The member at a position.
    #[inline]
    #[must_use]
    pub fn member(&self, at: usize) -> Option<&Endpoint> {
        self.members.get(at)
    }
}

impl Chooser {
    fn new(method: Method, members: &[Endpoint]) -> Self {
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        let scheduled = |make: fn(Schedule) -> Self| Schedule::new(&weights).map_or(Self::Nobody, make);
        match method {
            Method::RoundRobin => scheduled(Self::RoundRobin),
            Method::Random => Self::Random(Weighted::new(&weights)),
            Method::LeastRequest => Self::LeastRequest(Weighted::new(&weights)),
            Method::PeakEwma => Self::PeakEwma(Weighted::new(&weights)),
            Method::Modulo => scheduled(|schedule| Self::Hashed(HashTable::Modulo(schedule))),
            Method::Maglev(seed) => Self::Hashed(HashTable::Maglev(Maglev::new(seed, members))),
            Method::Ring(seed, least, most) => {
                Self::Hashed(HashTable::Ring(Box::new(Ring::new(seed, least, most, members))))
            }
        }
    }
}

impl HashTable {
    /// The position of the member for `hash`.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64) -> usize {
        match self {
            Self::Modulo(schedule) => schedule.at(hash),
            Self::Maglev(maglev) => maglev.find(hash),
            Self::Ring(ring) => ring.find(hash),
        }
    }
}

impl Sessions {
    /// The member that a cookie names.
    #[must_use]
    pub fn find(&self, tag: u64) -> Option<usize> {
        let at = self.by_tag.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.by_tag.get(at).map(|(_, member)| *member as usize)
    }

    /// What names the member at a position.
    #[must_use]
    pub fn tag(&self, member: usize) -> Option<u64> {
        self.tags.get(member).copied()
    }
}

/// What a cookie says for an endpoint: a keyed hash, which tells nothing about the address, and which nobody can make up who has
/// not been given it. Never 0. `scope` keeps clusters apart.
#[must_use]
pub fn session_tag(key: [u64; 2], scope: &str, endpoint: SocketAddr) -> u64 {
    let [k0, k1] = key;
    let mut hasher = SipHasher13::new_with_keys(k0, k1);
    hasher.write(scope.as_bytes());
    hasher.write(&place(endpoint));
    hasher.finish().max(1)
}

/// An endpoint as hashes see it: the same on every host.
pub(crate) fn place(endpoint: SocketAddr) -> [u8; 18] {
    let mut bytes = [0; 18];
    let ip = match endpoint.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let (address, port) = bytes.split_at_mut(16);
    address.copy_from_slice(&ip.octets());
    port.copy_from_slice(&endpoint.port().to_be_bytes());
    bytes
}

/// The hash of what a request is balanced by: the same on every host.
#[inline]
#[must_use]
pub fn request_hash(seed: u64, bytes: &[u8]) -> u64 {
    SipHasher13::new_with_keys(seed, 0x6d69_6c6c_7261_6365).hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::EndpointId;

    fn endpoint(id: u32, weight: u32) -> Endpoint {
        Endpoint { id: EndpointId(id), address: SocketAddr::from(([10, 0, 0, id as u8], 80)), weight }
    }

    #[test]
    fn who_has_no_weight_is_no_member() {
        let selection = Selection::round_robin(vec![endpoint(1, 0), endpoint(2, 3)]);
        assert_eq!(selection.members(), [endpoint(2, 3)]);
        assert_eq!(*Selection::new(Method::Maglev(0), vec![endpoint(1, 0)]).chooser(), Chooser::Nobody);
    }

    #[test]
    fn a_tag_names_its_member_and_no_other_key_or_scope_gives_it() {
        let make = |key, scope| {
            Selection::round_robin(vec![endpoint(1, 1), endpoint(2, 1)]).with_sessions(key, scope, vec![endpoint(3, 0)])
        };
        let selection = make([1, 2], "ns/a:80");
        let sessions = selection.sessions().unwrap();
        for member in 0..3 {
            let tag = sessions.tag(member).unwrap();
            assert_eq!(sessions.find(tag), Some(member));
            assert_eq!(sessions.find(tag ^ 1), None);
            for (key, scope) in [([1, 3], "ns/a:80"), ([1, 2], "ns/b:80")] {
                assert_eq!(make(key, scope).sessions().unwrap().find(tag), None);
            }
        }
        // The same after a restart, and whoever else is a member.
        let later = Selection::round_robin(vec![endpoint(2, 5)]).with_sessions([1, 2], "ns/a:80", vec![]);
        assert_eq!(later.sessions().unwrap().tag(0), sessions.tag(1));
    }
}
