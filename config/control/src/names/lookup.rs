//! Questions to DNS servers, over the kernel's network.
//!
//! The resolver asks, asks again, follows aliases (CNAME, 8 at most) and turns to TCP where an answer does not fit. It keeps nothing: how long an
//! answer counts, [`super::entry`] decides. Names are asked for as they are: search lists and /etc/hosts do not count.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use schema::{Dns, DnsName, DnsType, LookupFamily};
use tokio::task::JoinSet;

use super::answer::{Absence, Failure, Outcome, Resolved, Service, both};

/// Questions about the targets of one SRV name at a time.
const TARGETS_AT_A_TIME: usize = 16;

/// Steps that one question may take, each with all its attempts: aliases, and TCP after UDP.
const STEPS: u32 = 4;

/// Aliases of an SRV name that are followed one after the other, as many as the resolver follows of others.
const MAX_ALIASES: usize = 8;

/// What negative answers are believed for that do not say it.
const UNSAID: Duration = Duration::from_secs(5);

/// What is done before each question: nothing, but where a test wants to see what becomes of a resolver that panics.
pub(super) type Before = fn(&DnsName);

/// Asks servers.
#[derive(Clone)]
pub(super) struct Asker {
    before: Before,
    resolver: TokioResolver,
    limit: Duration,
    max_addresses: usize,
}

impl Asker {
    pub(super) fn new(settings: &Dns, before: Before) -> Result<Self, Failure> {
        let servers: Vec<NameServerConfig> = if settings.servers.is_empty() {
            let (system, _) = hickory_resolver::system_conf::read_system_conf()
                .map_err(|error| Failure::Other(format!("/etc/resolv.conf: {error}")))?;
            system.name_servers().to_vec()
        } else {
            settings.servers.iter().map(|server| server_config(server.value)).collect()
        };
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = settings.timeout;
        // It counts those after the first.
        options.attempts = usize::from(settings.attempts.saturating_sub(1));
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        // With them come the TTLs of aliases, which count too.
        options.preserve_intermediates = true;
        let resolver = builder.build().map_err(|error| Failure::Other(error.to_string()))?;
        let limit = settings.timeout * u32::from(settings.attempts) * STEPS;
        Ok(Self { before, resolver, limit, max_addresses: settings.max_addresses.into() })
    }

    /// Asks for a name. What is known of it may fill in where a part of the answer cannot be had.
    pub(super) async fn ask(&self, name: &DnsName, held: &[Resolved]) -> Outcome<Resolved> {
        (self.before)(name);
        match name.kind {
            DnsType::Address => {
                let held: Vec<IpAddr> = held.iter().map(|resolved| resolved.address).collect();
                let found = self.addresses(&name.hostname, name.lookup_family, &held).await;
                found.map(|address| Resolved { address, service: None })
            }
            DnsType::Srv => self.services(name, held).await,
        }
    }

    async fn addresses(&self, host: &str, family: LookupFamily, held: &[IpAddr]) -> Outcome<IpAddr> {
        let v4 = self.records(host, RecordType::A, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        });
        let v6 = self.records(host, RecordType::AAAA, |data| match data {
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        });
        match family {
            LookupFamily::Ipv4 => v4.await,
            LookupFamily::Ipv6 => v6.await,
            LookupFamily::Ipv4AndIpv6 | LookupFamily::Ipv4Preferred | LookupFamily::Ipv6Preferred => {
                let (v4, v6) = tokio::join!(v4, v6);
                both(v4, v6, held)
            }
        }
    }

    /// The targets of an SRV name with their addresses.
    async fn services(&self, name: &DnsName, held: &[Resolved]) -> Outcome<Resolved> {
        let (mut services, ttl) = match self.service_records(&name.hostname).await {
            Outcome::Records(services, ttl, _) => (services, ttl),
            Outcome::Absent(absence, ttl) => return Outcome::Absent(absence, ttl),
            Outcome::Failed(failure) => return Outcome::Failed(failure),
        };
        // The root means that there is no such service; nothing listens on port 0.
        services.retain(|service| !service.target.is_empty() && service.port != 0);
        if services.is_empty() {
            return Outcome::Absent(Absence::Service, ttl);
        }
        services.sort();
        services.dedup();
        services.truncate(self.max_addresses);
        let targets: BTreeSet<&str> = services.iter().map(|service| service.target.as_str()).collect();
        let mut answers: BTreeMap<String, Outcome<IpAddr>> = BTreeMap::new();
        let mut left = targets.iter();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < TARGETS_AT_A_TIME
                && let Some(target) = left.next()
            {
                let known = held.iter().filter(|r| r.service.as_ref().is_some_and(|s| s.target == **target));
                let known: Vec<IpAddr> = known.map(|resolved| resolved.address).collect();
                let (asker, target, family) = (self.clone(), (*target).to_owned(), name.lookup_family);
                asking.spawn(async move {
                    let outcome = match asker.addresses(&target, family, &known).await {
                        // A target that cannot be resolved now is where it was.
                        Outcome::Failed(failure) if !known.is_empty() => Outcome::Records(known, UNSAID, Some(failure)),
                        other => other,
                    };
                    (target, outcome)
                });
            }
            match asking.join_next().await {
                Some(Ok((target, outcome))) => drop(answers.insert(target, outcome)),
                // It panicked, which has been reported; the target counts as not resolved.
                Some(Err(_)) => {}
                None => break,
            }
        }
        merge(&services, ttl, &answers)
    }

    /// The SRV records of a name. The resolver follows no aliases here, but takes the targets for some and asks for theirs in vain.
    async fn service_records(&self, host: &str) -> Outcome<Service> {
        let mut host = host.to_owned();
        let mut alias_ttl = Duration::MAX;
        for _ in 0..=MAX_ALIASES {
            let found = self.records(&host, RecordType::SRV, |data| match data {
                RData::SRV(srv) => {
                    let (priority, port, weight) = (srv.priority, srv.port, srv.weight);
                    Some(Service { priority, target: text(&srv.target), port, weight })
                }
                _ => None,
            });
            let found = match found.await {
                Outcome::Records(services, ttl, failure) => {
                    return Outcome::Records(services, ttl.min(alias_ttl), failure);
                }
                // Who does not answer would not answer that either.
                Outcome::Failed(Failure::Timeout) => return Outcome::Failed(Failure::Timeout),
                found => found,
            };
            let alias = self.records(&host, RecordType::CNAME, |data| match data {
                RData::CNAME(alias) => Some(text(&alias.0)),
                _ => None,
            });
            match alias.await {
                Outcome::Records(aliases, ttl, _) if !aliases.is_empty() => {
                    host = aliases.into_iter().next().unwrap_or_default();
                    alias_ttl = alias_ttl.min(ttl);
                }
                _ => {
                    return match found {
                        Outcome::Absent(absence, ttl) => Outcome::Absent(absence, ttl.min(alias_ttl)),
                        found => found,
                    };
                }
            }
        }
        Outcome::Failed(Failure::Other(format!("more than {MAX_ALIASES} aliases one after the other")))
    }

    /// The records of one kind.
    async fn records<T>(&self, host: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Outcome<T> {
        // It was checked to be a name; the dot says that it is a whole one.
        let name = match Name::from_ascii(format!("{host}.")) {
            Ok(name) => name,
            Err(error) => return Outcome::Failed(Failure::Other(error.to_string())),
        };
        match tokio::time::timeout(self.limit, self.resolver.lookup(name, kind)).await {
            Ok(Ok(lookup)) => {
                let records: Vec<T> = lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
                let ttl = ttl(&lookup);
                if records.is_empty() {
                    Outcome::Absent(Absence::Records, ttl)
                } else {
                    Outcome::Records(records, ttl, None)
                }
            }
            Ok(Err(error)) => failed(&error),
            Err(_) => Outcome::Failed(Failure::Timeout),
        }
    }
}

impl<T> Outcome<T> {
    fn map<U>(self, change: impl FnMut(T) -> U) -> Outcome<U> {
        match self {
            Self::Records(records, ttl, partly) => {
                Outcome::Records(records.into_iter().map(change).collect(), ttl, partly)
            }
            Self::Absent(absence, ttl) => Outcome::Absent(absence, ttl),
            Self::Failed(failure) => Outcome::Failed(failure),
        }
    }
}

/// What SRV records and the answers about their targets come to.
fn merge(services: &[Service], ttl: Duration, answers: &BTreeMap<String, Outcome<IpAddr>>) -> Outcome<Resolved> {
    let (mut all, mut least, mut partly, mut absent) = (Vec::new(), ttl, None, None);
    for service in services {
        match answers.get(&service.target) {
            Some(Outcome::Records(addresses, ttl, failure)) => {
                least = least.min(*ttl);
                partly = partly.or_else(|| failure.clone());
                all.extend(addresses.iter().map(|&address| Resolved { address, service: Some(service.clone()) }));
            }
            Some(Outcome::Absent(absence, ttl)) => {
                least = least.min(*ttl);
                absent = Some(*absence);
            }
            Some(Outcome::Failed(failure)) => partly = partly.or_else(|| Some(failure.clone())),
            None => partly = partly.or_else(|| Some(Failure::Other(format!("{} was not asked for", service.target)))),
        }
    }
    match (all.is_empty(), partly, absent) {
        (false, partly, _) => Outcome::Records(all, least, partly),
        (true, Some(failure), _) => Outcome::Failed(failure),
        (true, None, absent) => Outcome::Absent(absent.unwrap_or(Absence::Records), least),
    }
}

/// A name in lower case and without the last dot.
fn text(name: &Name) -> String {
    name.to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned()
}

/// How long an answer may be kept: as long as the shortest-lived of its records, aliases included.
fn ttl(lookup: &Lookup) -> Duration {
    let seconds = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
    Duration::from_secs(seconds.into())
}

fn failed<T>(error: &NetError) -> Outcome<T> {
    let failure = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let ttl = none.negative_ttl.map_or(UNSAID, |seconds| Duration::from_secs(seconds.into()));
            match none.response_code {
                ResponseCode::NXDomain => return Outcome::Absent(Absence::Name, ttl),
                ResponseCode::NoError => return Outcome::Absent(Absence::Records, ttl),
                ResponseCode::ServFail => Failure::ServFail,
                ResponseCode::Refused => Failure::Refused,
                other => Failure::Other(format!("the server answers {other}")),
            }
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => Failure::ServFail,
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => Failure::Refused,
        NetError::Timeout => Failure::Timeout,
        other => Failure::Other(other.to_string()),
    };
    Outcome::Failed(failure)
}

fn server_config(server: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (server.port(), server.port());
    // Where one says that there is nothing, the others are asked, too.
    NameServerConfig::new(server.ip(), false, vec![udp, tcp])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_are_not_resolved_leave_the_others() {
        let service = |target: &str| Service { priority: 0, target: target.into(), port: 80, weight: 1 };
        let services = [service("a"), service("b"), service("c")];
        let (ttl, short) = (Duration::from_secs(60), Duration::from_secs(7));
        let ip: IpAddr = "10.9.1.2".parse().unwrap();
        let known = Outcome::Records(vec![ip], short, None);
        let of = |list: &[(&str, &Outcome<IpAddr>)]| {
            merge(
                &services,
                ttl,
                &list.iter().map(|(name, outcome)| ((*name).to_owned(), (*outcome).clone())).collect(),
            )
        };
        let (absent, failed) = (Outcome::Absent(Absence::Name, ttl), Outcome::Failed(Failure::ServFail));
        let resolved = vec![Resolved { address: ip, service: Some(service("a")) }];
        let partly = Some(Failure::ServFail);
        assert_eq!(of(&[("a", &known), ("b", &absent), ("c", &failed)]), Outcome::Records(resolved, short, partly));
        assert_eq!(of(&[("a", &absent), ("b", &absent), ("c", &absent)]), Outcome::Absent(Absence::Name, ttl));
        assert_eq!(of(&[("a", &absent), ("b", &failed), ("c", &absent)]), Outcome::Failed(Failure::ServFail));
    }
}
