//! Which endpoint of a backend the balancer would pick now: exactly, where a cookie, a hash or a turn decides; with probabilities where chance does.
//! The balancers themselves do not notice.

use serde::{Deserialize, Serialize};
use tables::affinity::Wish;
use tables::cluster::HashOn;
use tables::{Chooser, Cluster, Schedule, Selection};

/// Candidates that are shown, at most.
const SHOWN: usize = 8;

/// What a balancer would pick now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pick {
    /// The endpoint; `None` where chance decides, or nobody knows.
    pub endpoint: Option<String>,
    /// Why, in words.
    pub why: String,
    /// Where chance decides, who may be drawn: the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

/// An endpoint that may be drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Address and port.
    pub address: String,
    /// How likely it is drawn, 0 to 1.
    pub probability: f64,
}

/// What is known when a pick is worked out.
pub(super) struct Known {
    /// What the request says.
    pub(super) wish: Wish,
    /// Nobody said who sends it.
    pub(super) no_client: bool,
    /// A core, and its place in the cluster's schedule.
    pub(super) place: Option<(u16, u32)>,
}

/// Whose turn it is at a place, which does not move.
pub(super) fn turn(schedule: &Schedule, place: u32) -> usize {
    let mut place = place;
    schedule.next(&mut place)
}

pub(super) fn pick(cluster: &Cluster, selection: &Selection, known: &Known) -> Pick {
    let at = |member: usize| selection.member(member).map(|member| member.address.to_string());
    let exactly = |member: usize, why: String| Pick { endpoint: at(member), why, candidates: Vec::new() };
    let cookie = cluster.affinity.as_ref().and_then(|affinity| affinity.session.as_ref());
    let cookie = cookie.map(|cookie| String::from_utf8_lossy(&cookie.name).into_owned()).unwrap_or_default();
    let mut aside = String::new();
    if known.wish.session != 0 {
        if let Some(member) = selection.sessions().and_then(|sessions| sessions.find(known.wish.session)) {
            return exactly(member, format!("cookie {cookie} names it"));
        }
        aside = format!("; cookie {cookie} names nobody here");
    }
    let drawn = |how: &str| Pick { endpoint: None, why: format!("{how}{aside}"), candidates: candidates(selection) };
    match selection.chooser() {
        Chooser::Nobody => Pick { endpoint: None, why: "nobody takes requests".to_owned(), candidates: Vec::new() },
        Chooser::RoundRobin(schedule) => match known.place {
            Some((core, place)) => exactly(turn(schedule, place), format!("it is its turn on core {core}{aside}")),
            None => drawn("they take turns, and each core knows for itself whose it is"),
        },
        Chooser::Random(_) => drawn("drawn by chance"),
        Chooser::LeastRequest(_) => {
            drawn("of two that are drawn by chance, the one with fewer requests under way for its weight")
        }
        Chooser::PeakEwma(_) => {
            drawn("of two that are drawn by chance, the one with the lower product of latency and requests under way")
        }
        Chooser::Hashed(table) => {
            let on = cluster.affinity.as_ref().and_then(|affinity| affinity.hash_on.as_ref());
            let text = |kind: &str, name: &[u8]| format!("{kind} {}", String::from_utf8_lossy(name));
            let what = match on {
                Some(HashOn::Header(name)) => text("header", name),
                Some(HashOn::Cookie(name)) => text("cookie", name),
                Some(HashOn::QueryParam(name)) => text("query parameter", name),
                Some(HashOn::SourceIp) if known.no_client => {
                    return drawn("by the hash of the client's address, which nobody said");
                }
                Some(HashOn::SourceIp) | None => "the client's address".to_owned(),
            };
            match known.wish.hash {
                0 => drawn(&format!("drawn by chance: the request has no {what}")),
                hash => exactly(table.find(hash), format!("by the hash of {what}{aside}")),
            }
        }
    }
}

/// Who may be drawn. Equal ones are in the order of the configuration.
fn candidates(selection: &Selection) -> Vec<Candidate> {
    let total: f64 = selection.members().iter().map(|member| f64::from(member.weight)).sum();
    let takes = selection.members().iter().filter(|member| member.weight > 0);
    let mut all: Vec<Candidate> = takes
        .map(|member| Candidate {
            address: member.address.to_string(),
            probability: f64::from(member.weight) / total.max(1.0),
        })
        .collect();
    all.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    all.truncate(SHOWN);
    all
}
