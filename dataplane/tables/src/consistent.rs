//! Consistent hashing: from a hash to a member, so that few hashes move when members come and go.
//!
//! Where a member lies follows from its address, its weight and the seed alone, so that every host with the same configuration
//! makes the same table.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::cluster::Endpoint;
use crate::selection::place;

/// Places of a Maglev table: a prime, and enough for hundreds of members at less than 1 % of imbalance (Eisenbud et al. 2016, §5.3).
pub const MAGLEV_PLACES: usize = 65_537;

/// Members of a Maglev table at most: of as many that weigh the same, each has a place. The configuration lets nobody have more.
pub const MAGLEV_MEMBERS: usize = FREE as usize;

/// In place of a member while a table is filled.
const FREE: u16 = u16::MAX;

/// Maglev's table (Eisenbud et al. 2016, §3.4), with weights: who weighs half takes every other turn at filling it.
#[derive(Debug, PartialEq, Eq)]
pub struct Maglev {
    places: Box<[u16]>,
}

/// A member on its way through the places.
struct Filler {
    at: usize,
    skip: usize,
    weight: u64,
    /// The sum of the heaviest's weights that its turns so far have cost it.
    spent: u64,
    member: u16,
}

impl Filler {
    /// The round in which it has come to its next turn, where each round earns it its weight.
    fn due(&self, heaviest: u64) -> u64 {
        (self.spent + heaviest).div_ceil(self.weight)
    }

    /// Takes its next place that is free. Its permutation visits all of them; there has to be one.
    fn take(&mut self, places: &mut [u16]) {
        while places.get(self.at).is_some_and(|&taken| taken != FREE) {
            self.at += self.skip;
            if self.at >= MAGLEV_PLACES {
                self.at -= MAGLEV_PLACES;
            }
        }
        if let Some(free) = places.get_mut(self.at) {
            *free = self.member;
        }
    }
}

impl Maglev {
    /// A table of `members`, of which the first [`MAGLEV_MEMBERS`] are taken. Whose share is less than a place may have none.
    #[must_use]
    pub fn new(seed: u64, members: &[Endpoint]) -> Self {
        let heaviest = members.iter().map(|member| u64::from(member.weight)).max().unwrap_or(1).max(1);
        let weighty = members.iter().take(MAGLEV_MEMBERS).zip(0u16..).filter(|(endpoint, _)| endpoint.weight > 0);
        let mut fillers: Vec<Filler> = weighty
            .map(|(endpoint, member)| Filler {
                at: (hash(seed, 1, endpoint) % MAGLEV_PLACES as u64) as usize,
                skip: (hash(seed, 2, endpoint) % (MAGLEV_PLACES as u64 - 1)) as usize + 1,
                weight: u64::from(endpoint.weight),
                spent: 0,
                member,
            })
            .collect();
        // The order of the configuration's lines must not matter.
        fillers.sort_by_cached_key(|filler| members.get(usize::from(filler.member)).map(|m| place(m.address)));
        // By the round of their next turn, and in order within a round: a light one among heavy ones is not looked at in vain.
        let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
            fillers.iter().enumerate().map(|(order, filler)| Reverse((filler.due(heaviest), order))).collect();
        let mut places = vec![FREE; MAGLEV_PLACES];
        for _ in 0..MAGLEV_PLACES {
            let Some(mut turn) = turns.peek_mut() else { break };
            let Reverse((round, order)) = &mut *turn;
            let Some(filler) = fillers.get_mut(*order) else { break };
            filler.take(&mut places);
            filler.spent += heaviest;
            *round = filler.due(heaviest);
        }
        Self { places: places.into() }
    }

    /// The member for `hash`.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64) -> usize {
        self.places.get((hash % MAGLEV_PLACES as u64) as usize).map_or(0, |&member| usize::from(member))
    }
}

/// A ring (Karger et al. 1997): each member lies at as many places as its weight says, and a hash belongs to the next one.
#[derive(Debug, PartialEq, Eq)]
pub struct Ring {
    places: Box<[(u64, u32)]>,
    /// Where the places begin whose uppermost bits are those of the position here, and where the last ones end: one place lies between two of them on average.
    starts: Box<[u32]>,
    /// How far a hash is shifted to be such a position.
    shift: u32,
}

impl Ring {
    /// A ring of `members` with half of `least` places for the heaviest, and `most` at most where the members are not more.
    ///
    /// How many places the heaviest has does not follow from how many members there are: one that comes or goes, or is on its way to its full
    /// weight, changes none of the others' places. Only where there would be more than `most` of them, all have half as many, a quarter …
    #[must_use]
    pub fn new(seed: u64, least: u32, most: u32, members: &[Endpoint]) -> Self {
        let heaviest = members.iter().map(|member| u64::from(member.weight)).max().unwrap_or(1).max(1);
        let share = |each: u64, weight: u32| match u64::from(weight) {
            0 => 0,
            weight => ((weight * each + heaviest / 2) / heaviest).max(1),
        };
        let size = |each: u64| members.iter().map(|member| share(each, member.weight)).sum::<u64>();
        // Two that weigh the same have `least`. By how many they are, or by what they weigh together, it must not go.
        let mut each = u64::from(least).div_ceil(2).max(1);
        while each > 1 && size(each) > u64::from(most) {
            each /= 2;
        }
        let mut places = Vec::new();
        for (position, member) in (0u32..).zip(members) {
            places.extend((0..share(each, member.weight)).map(|turn| (hash(seed, 3 + turn, member), position)));
        }
        places.sort_unstable_by_key(|&(at, member)| (at, members.get(member as usize).map(|m| place(m.address))));
        let bits = places.len().max(2).ilog2();
        let shift = u64::BITS - bits;
        let start = |upper: u64| places.partition_point(|&(at, _)| at >> shift < upper) as u32;
        let starts = (0..=1 << bits).map(start).collect();
        Self { places: places.into(), starts, shift }
    }

    /// The member for `hash`.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64) -> usize {
        let upper = (hash >> self.shift) as usize;
        let start = |upper: usize| self.starts.get(upper).map_or(0, |&start| start as usize);
        let (from, to) = (start(upper), start(upper + 1));
        let at = from + self.places.get(from..to).unwrap_or_default().partition_point(|&(place, _)| place < hash);
        self.places.get(at).or_else(|| self.places.first()).map_or(0, |&(_, member)| member as usize)
    }
}

fn hash(seed: u64, salt: u64, endpoint: &Endpoint) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, salt);
    hasher.write(&place(endpoint.address));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::cluster::EndpointId;

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        (0u32..)
            .zip(weights)
            .map(|(id, &weight)| Endpoint {
                id: EndpointId(id),
                address: SocketAddr::from(([10, 0, (id >> 8) as u8, id as u8], 8080)),
                weight,
            })
            .collect()
    }

    fn owners(table: &Maglev, members: &[Endpoint]) -> Vec<EndpointId> {
        table.places.iter().map(|&member| members[usize::from(member)].id).collect()
    }

    /// The bound: of the table, one n-th moves because it has to, and at most 1 % beside it.
    #[test]
    fn removing_one_of_n_moves_little_more_than_its_share() {
        for n in [2, 3, 5, 10, 30, 100] {
            let members = endpoints(&vec![1; n]);
            let before = owners(&Maglev::new(7, &members), &members);
            for gone in [0, n / 2, n - 1] {
                let mut rest = members.clone();
                let gone = rest.remove(gone);
                let after = owners(&Maglev::new(7, &rest), &rest);
                let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
                let had = before.iter().filter(|&&owner| owner == gone.id).count();
                let more = (moved - had) as f64 / MAGLEV_PLACES as f64;
                assert!(more <= 0.01, "n = {n}: {:.3} % more than its share", more * 100.0);
            }
        }
    }

    /// The same bound where one comes, where weights differ, and where a weight changes: what moves beyond the share that has to.
    #[test]
    fn whoever_comes_or_changes_weight_moves_little_more_than_his_share() {
        let places = |members: &[Endpoint]| owners(&Maglev::new(11, members), members);
        let of = |owners: &[EndpointId], id: u32| owners.iter().filter(|owner| owner.0 == id).count();
        let moved = |a: &[EndpointId], b: &[EndpointId]| a.iter().zip(b).filter(|(a, b)| a != b).count();
        let part = |places: usize| places as f64 / MAGLEV_PLACES as f64;
        for weights in [&[1, 1, 1][..], &[1, 2, 5], &[3, 1, 4, 1, 5, 9, 2, 6], &[1; 40]] {
            let before = endpoints(weights);
            let mut after = before.clone();
            after.push(Endpoint { id: EndpointId(900), address: "192.0.2.7:80".parse().unwrap(), weight: 2 });
            let (old, new) = (places(&before), places(&after));
            let more = part(moved(&old, &new) - of(&new, 900));
            assert!(more <= 0.01, "one comes to {weights:?}: {:.3} % more than its share", more * 100.0);
            let mut heavier = before.clone();
            heavier[0].weight *= 2;
            let new = places(&heavier);
            let more = part(moved(&old, &new) - (of(&new, 0) - of(&old, 0)));
            assert!(more <= 0.02, "{weights:?}, the first one doubled: {:.3} % more", more * 100.0);
        }
    }

    /// A ring moves nothing but what the one that comes takes; and the same seed gives the same ring.
    #[test]
    fn whoever_comes_to_a_ring_takes_his_share_from_all() {
        let before = endpoints(&[1; 9]);
        let mut after = before.clone();
        after.push(Endpoint { id: EndpointId(900), address: "192.0.2.7:80".parse().unwrap(), weight: 1 });
        let make = |seed, members: &[Endpoint]| Ring::new(seed, 9_000, 1 << 20, members);
        let (old, new, other) = (make(3, &before), make(3, &after), make(4, &before));
        assert!(old.places == make(3, &before).places && old.places != other.places);
        let mut lost = [0u32; 9];
        let mut elsewhere = 0;
        for at in 0..100_000u64 {
            let hash = crate::selection::request_hash(0, &at.to_le_bytes());
            let (from, to) = (before[old.find(hash)].id, after[new.find(hash)].id);
            if to.0 == 900 {
                lost[from.0 as usize] += 1;
            } else {
                elsewhere += u32::from(from != to);
            }
        }
        let share: u32 = lost.iter().sum();
        assert!((8_000..12_000).contains(&share) && elsewhere == 0, "{share} moved to it, {elsewhere} elsewhere");
        assert!(lost.iter().all(|&lost| (500..1_900).contains(&lost)), "{lost:?}");
    }

    /// The bound, for every number of members up to 70, with the defaults: what moves beside the share of the one that comes or goes.
    #[test]
    fn a_ring_moves_no_more_than_a_share_for_any_number_of_members() {
        const HASHES: u64 = 20_000;
        let hashes: Vec<u64> = (0..HASHES).map(|at| crate::selection::request_hash(1, &at.to_le_bytes())).collect();
        let owners = |members: &[Endpoint]| -> Vec<EndpointId> {
            let ring = Ring::new(7, 1024, 1 << 20, members);
            assert_eq!(ring.places.len(), members.len() * 512);
            hashes.iter().map(|&hash| members[ring.find(hash)].id).collect()
        };
        for n in (2..=70).chain([127, 128, 129, 130]) {
            let members = endpoints(&vec![1; n]);
            let (before, all) = (owners(&members[..n - 1]), owners(&members));
            // The last one is new; and one in the middle goes.
            let new = members[n - 1].id;
            let elsewhere = before.iter().zip(&all).filter(|(a, b)| a != b && **b != new).count();
            let mut rest = members.clone();
            let gone = rest.remove(n / 2).id;
            let without = owners(&rest);
            let moved = all.iter().zip(&without).filter(|(a, b)| a != b && **a != gone).count();
            assert!(
                elsewhere.max(moved) as u64 * 100 <= HASHES,
                "{n}: {elsewhere} with one more, {moved} with one less"
            );
            let share = all.iter().filter(|owner| **owner == new).count() as f64 / HASHES as f64 * n as f64;
            assert!((0.8..1.2).contains(&share), "{n}: {share} of its share");
        }
    }

    #[test]
    fn a_hash_belongs_to_the_next_place_of_the_ring() {
        for n in [0, 1, 2, 3, 40] {
            let ring = Ring::new(7, 8, 1 << 20, &endpoints(&vec![1; n]));
            let edges = ring.places.iter().flat_map(|&(at, _)| [at.wrapping_sub(1), at, at.wrapping_add(1)]);
            for hash in edges.chain([0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX]) {
                let next = ring.places.iter().find(|(at, _)| *at >= hash).or(ring.places.first());
                assert_eq!(ring.find(hash), next.map_or(0, |&(_, member)| member as usize), "{n}: {hash:x}");
            }
        }
    }

    /// One that starts slowly, or is lighter than all others.
    #[test]
    fn a_ring_takes_from_the_others_what_one_gains() {
        let hashes: Vec<u64> = (0..20_000u64).map(|at| crate::selection::request_hash(1, &at.to_le_bytes())).collect();
        let mut members = endpoints(&[100; 5]);
        let mut before: Option<Vec<usize>> = None;
        for weight in [1, 10, 33, 50, 99, 100] {
            members[2].weight = weight;
            let ring = Ring::new(7, 1024, 65_536, &members);
            let now: Vec<usize> = hashes.iter().map(|&hash| ring.find(hash)).collect();
            if let Some(before) = before {
                assert!(before.iter().zip(&now).all(|(a, b)| a == b || *b == 2), "{weight}");
            }
            before = Some(now);
        }
        // One outweighs all others together, and where there are too many places, all have fewer.
        for (weights, least, most) in [(&[1000, 1, 1][..], 1024, 65_536), (&[1; 100], 1024, 4096), (&[1; 100], 1, 64)] {
            let places = Ring::new(7, least, most, &endpoints(weights)).places.len();
            assert!((least as usize / 2..=(most as usize).max(weights.len())).contains(&places), "{places}");
        }
    }

    #[test]
    fn places_follow_the_weights_and_the_seed_and_no_order() {
        let members = endpoints(&[1, 2, 5]);
        let table = owners(&Maglev::new(7, &members), &members);
        for (id, share) in [(0, 1.0 / 8.0), (1, 2.0 / 8.0), (2, 5.0 / 8.0)] {
            let places = table.iter().filter(|owner| owner.0 == id).count() as f64;
            assert!((places / MAGLEV_PLACES as f64 - share).abs() < 0.001, "{id}: {places}");
        }
        let mut turned = members.clone();
        turned.reverse();
        assert_eq!(owners(&Maglev::new(7, &turned), &turned), table);
        assert_ne!(owners(&Maglev::new(8, &members), &members), table);
        assert_eq!(table.iter().take(8).map(|owner| owner.0).collect::<Vec<_>>(), KNOWN, "as on every other host");
    }

    /// Where a table has more members than Google's hundreds: none of them is left out, and light ones do not make it slow.
    #[test]
    fn tens_of_thousands_of_members_all_have_places() {
        let members: Vec<Endpoint> = (0..MAGLEV_MEMBERS as u32)
            .map(|id| Endpoint {
                id: EndpointId(id),
                address: SocketAddr::from(((0x0a00_0000 + id).to_be_bytes(), 80)),
                weight: 1,
            })
            .collect();
        let places = |count: usize| {
            let table = Maglev::new(7, &members[..count]);
            let mut places = vec![0usize; count];
            table.places.iter().for_each(|&member| places[usize::from(member)] += 1);
            places
        };
        for count in [8_193, 20_000, MAGLEV_MEMBERS] {
            let even = MAGLEV_PLACES / count;
            assert!(places(count).iter().all(|&own| own == even || own == even + 1), "{count}");
        }
        // Whose share is less than a place may have none; and a heavy one among many costs no time.
        let mut uneven = members;
        uneven[17].weight = 1_000_000;
        let table = Maglev::new(7, &uneven);
        let heavy = table.places.iter().filter(|&&member| member == 17).count() as f64 / MAGLEV_PLACES as f64;
        assert!(heavy > 1_000_000.0 / 1_065_534.0, "{heavy}");
    }

    const KNOWN: [u32; 8] = [0, 1, 2, 1, 0, 2, 2, 0];

    #[test]
    fn a_ring_keeps_what_is_not_the_gone_ones_and_follows_the_weights() {
        let members = endpoints(&[1, 1, 2, 4]);
        let ring = Ring::new(7, 50_000, 1 << 20, &members);
        let mut rest = members.clone();
        rest.remove(1);
        let without = Ring::new(7, 50_000, 1 << 20, &rest);
        let mut counts = [0u32; 4];
        let (mut moved, mut of_the_gone) = (0, 0);
        let mut at = 1u64;
        for _ in 0..100_000 {
            at = at.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let hash = at ^ at >> 29;
            let owner = ring.find(hash);
            counts[owner] += 1;
            of_the_gone += u32::from(owner == 1);
            moved += u32::from(members[owner].id != rest[without.find(hash)].id);
        }
        assert_eq!(moved, of_the_gone, "nothing moves but what had to");
        for (count, weight) in counts.iter().zip([1, 1, 2, 4]) {
            assert!((f64::from(*count) / 100_000.0 - f64::from(weight) / 8.0).abs() < 0.02, "{counts:?}");
        }
        assert_eq!(Ring::new(7, 16, 16, &members).find(u64::MAX), Ring::new(7, 16, 16, &members).places[0].1 as usize);
    }
}
