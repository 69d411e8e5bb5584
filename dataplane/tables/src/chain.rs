//! Rules that share a host and a path, and differ in what else they ask.

use core::hash::{Hash, Hasher};

use hashbrown::{Equivalent, HashMap};

use crate::matching::{Conditions, Fields, Request, ValueMatch, decoded, parameters};

/// From so many candidates on, they are found by a header field or parameter of theirs and not one after the other.
const KEYED_FROM: usize = 9;

/// One match of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) conditions: Conditions,
    pub(crate) rule: u32,
    /// It takes no such requests but the preflights that ask for them.
    pub(crate) preflight: bool,
}

/// Candidates in order of precedence. Which one holds first is found with a hash per header field and per parameter of
/// the request, and the evaluation of those candidates that have one of these in common with it.
#[derive(Debug)]
pub(crate) struct Chain {
    candidates: Box<[Candidate]>,
    /// Positions of those that no key leads to.
    unkeyed: Box<[u32]>,
    keyed: HashMap<Key, Box<[u32]>>,
    /// Positions of those for preflights, which no other request need look at.
    preflights: Box<[u32]>,
    /// There are so many candidates that they have keys.
    many: bool,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Query,
}

/// A header field or parameter that a candidate asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    place: Place,
    name: Box<[u8]>,
    value: Box<[u8]>,
}

/// The same as it stands in a request: names of fields in any case, parameters encoded.
struct Given<'b> {
    place: Place,
    name: &'b [u8],
    value: &'b [u8],
}

impl Candidate {
    /// The Gateway API's order among matches of the same path: the method, then the number of header matches, then that of
    /// query matches. What sorts first goes first. Preflights come behind those who ask for their method, and stand where their requests do otherwise.
    pub(crate) fn order(&self) -> impl Ord + use<> {
        let Conditions { method, headers, query } = &self.conditions;
        let asked = method.is_some();
        core::cmp::Reverse((asked, !(asked && self.preflight), headers.len(), query.len(), !self.preflight))
    }

    /// Whether it takes `request`.
    #[inline]
    pub(crate) fn holds<'b, F: Fields<'b>>(&self, request: &Request<'b, F>) -> bool {
        if self.preflight { self.holds_for_preflight(request) } else { self.conditions.hold(request) }
    }

    /// A preflight stands for the request whose method and header fields it names (Fetch standard, CORS-preflight request). What it does not say, the
    /// values of those fields, may be what is asked for.
    #[inline(never)]
    fn holds_for_preflight<'b, F: Fields<'b>>(&self, request: &Request<'b, F>) -> bool {
        let field = |wanted: &[u8]| {
            let mut fields = request.fields.clone();
            fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
        };
        let asked = (request.method == b"OPTIONS" && field(b"origin").is_some())
            .then(|| field(b"access-control-request-method"))
            .flatten();
        let Some(method) = asked else { return false };
        let named = field(b"access-control-request-headers").unwrap_or_default();
        let names = |wanted: &[u8]| named.split(|&b| b == b',').any(|n| n.trim_ascii().eq_ignore_ascii_case(wanted));
        self.conditions.hold_where(&Request { method, ..request.clone() }, names)
    }
}

impl Chain {
    /// A chain of `candidates` in order of precedence. What stands behind one that asks for nothing is never reached, and left out.
    pub(crate) fn new(mut candidates: Vec<Candidate>) -> Self {
        if let Some(last) = candidates.iter().position(|c| c.conditions.is_empty()) {
            candidates.truncate(last + 1);
        }
        if candidates.len() < KEYED_FROM {
            let unkeyed = (0u32..).zip(&candidates).map(|(at, _)| at).collect();
            let (keyed, preflights) = (HashMap::new(), Box::default());
            return Self { candidates: candidates.into(), unkeyed, keyed, preflights, many: false };
        }
        // The key that fewest candidates have tells them best apart.
        let mut shared: HashMap<Key, usize> = HashMap::new();
        for key in candidates.iter().flat_map(|c| keys(&c.conditions)) {
            *shared.entry(key).or_default() += 1;
        }
        let (mut unkeyed, mut preflights) = (Vec::new(), Vec::new());
        let mut keyed: HashMap<Key, Vec<u32>> = HashMap::new();
        for (at, candidate) in (0u32..).zip(&candidates) {
            if candidate.preflight {
                preflights.push(at);
                continue;
            }
            match keys(&candidate.conditions).min_by_key(|key| shared.get(key).copied()) {
                Some(key) => keyed.entry(key).or_default().push(at),
                None => unkeyed.push(at),
            }
        }
        let keyed = keyed.into_iter().map(|(key, positions)| (key, positions.into())).collect();
        let (unkeyed, preflights) = (unkeyed.into(), preflights.into());
        Self { candidates: candidates.into(), unkeyed, keyed, preflights, many: true }
    }

    /// The rule of the first candidate that holds.
    pub(crate) fn find<'b, F: Fields<'b>>(&self, request: &Request<'b, F>) -> Option<u32> {
        let mut best = self.first(&self.unkeyed, u32::MAX, request);
        if self.many {
            let fields = request.fields.clone().map(|(name, value)| Given { place: Place::Header, name, value });
            let parameters = request.query.into_iter().flat_map(parameters);
            let parameters = parameters.map(|(name, value)| Given { place: Place::Query, name, value });
            for given in fields.chain(parameters) {
                if let Some(positions) = self.keyed.get(&given) {
                    best = self.first(positions, best.unwrap_or(u32::MAX), request).or(best);
                }
            }
            if request.method == b"OPTIONS" {
                best = self.first(&self.preflights, best.unwrap_or(u32::MAX), request).or(best);
            }
        }
        best.and_then(|at| self.candidates.get(at as usize)).map(|candidate| candidate.rule)
    }

    /// The first of `positions`, which are in order, that holds and lies before `end`.
    fn first<'b, F: Fields<'b>>(&self, positions: &[u32], end: u32, request: &Request<'b, F>) -> Option<u32> {
        let holds = |at: u32| self.candidates.get(at as usize).is_some_and(|c| c.holds(request));
        positions.iter().copied().take_while(|&at| at < end).find(|&at| holds(at))
    }
}

/// The keys under which a candidate can be found. A value with a comma may be that of several fields joined, of which none is it.
fn keys(conditions: &Conditions) -> impl Iterator<Item = Key> {
    let key = |place| {
        move |(name, value): &(Box<[u8]>, ValueMatch)| match value {
            ValueMatch::Exact(value) if place == Place::Query || !value.contains(&b',') => {
                Some(Key { place, name: name.clone(), value: value.clone() })
            }
            _ => None,
        }
    };
    conditions
        .headers
        .iter()
        .filter_map(key(Place::Header))
        .chain(conditions.query.iter().filter_map(key(Place::Query)))
}

/// FNV-1a, so that a hasher is asked once and not for each byte. Requests can be made that meet one key's bucket, but keys are the
/// configuration's: nobody can make them meet each other.
fn digest(place: Place, name: impl Iterator<Item = u8>, value: impl Iterator<Item = u8>) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ place as u64;
    name.chain(value).fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(digest(self.place, self.name.iter().copied(), self.value.iter().copied()));
    }
}

impl Hash for Given<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(match self.place {
            Place::Header => {
                digest(self.place, self.name.iter().map(u8::to_ascii_lowercase), self.value.iter().copied())
            }
            Place::Query => digest(self.place, decoded(self.name), decoded(self.value)),
        });
    }
}

impl Equivalent<Key> for Given<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.place == key.place
            && match self.place {
                Place::Header => self.name.eq_ignore_ascii_case(&key.name) && *self.value == *key.value,
                Place::Query => {
                    decoded(self.name).eq(key.name.iter().copied()) && decoded(self.value).eq(key.value.iter().copied())
                }
            }
    }
}
