//! `RoutePolicy` and `SecurityPolicy`: rate limits, and who may connect.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use schema::{
    Configuration, HttpRoute, HttpRouteRule, Name, ObjectName, RateLimitKey, RateLimitRule, RouteTarget,
    RouteTargetKind,
};
use tables::{KeyTable, Limit, LimitId, LimitKey, LimitRate, SourceTable};

use super::ListenerInput;

/// The limits of all configurations: their buckets outlive each of these, as long as the same limit is in the next one.
#[derive(Debug, Default)]
pub(super) struct LimitTables {
    tables: HashMap<Identity, Arc<KeyTable>>,
    free_slots: Vec<u32>,
    slots: u32,
    serial: u64,
}

/// What makes a limit the same one in two configurations. Numbers may change: buckets say up to when all was given out, whatever the rate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    policy: ObjectName,
    rule: Name,
    target: RouteTarget,
    by: LimitKey,
    keys: u32,
}

impl LimitTables {
    fn get(&mut self, identity: Identity, cores: usize) -> Arc<KeyTable> {
        if let Some(table) = self.tables.get(&identity) {
            return Arc::clone(table);
        }
        self.serial += 1;
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        // One bucket is enough where all requests are one key.
        let keys = if identity.by == LimitKey::All { 1 } else { identity.keys };
        let random = || RandomState::new().hash_one(self.serial);
        let table = Arc::new(KeyTable::new(keys as usize, cores, self.serial, slot, (random(), random())));
        self.tables.insert(identity, Arc::clone(&table));
        table
    }

    /// Forgets the limits that the last configuration does not have; their memory is free once no core runs an older one.
    fn retain(&mut self, used: &HashSet<Identity>) {
        let free = &mut self.free_slots;
        self.tables.retain(|identity, table| {
            let keep = used.contains(identity);
            if !keep {
                free.push(table.slot());
            }
            keep
        });
    }
}

/// The limits of one configuration.
#[derive(Debug)]
pub(super) struct Limits {
    /// In the snapshot's order.
    pub(super) limits: Vec<Limit>,
    by_target: HashMap<RouteTarget, Vec<LimitId>>,
}

impl Limits {
    pub(super) fn new(configuration: &Configuration, tables: &mut LimitTables, cores: usize) -> Self {
        let mut limits = Self { limits: Vec::new(), by_target: HashMap::new() };
        let mut used = HashSet::new();
        for policy in &configuration.route_policies {
            for target in &policy.spec.target_refs {
                for rule in &policy.spec.rate_limit.rules {
                    let by = key(&rule.by);
                    let identity = Identity {
                        policy: policy.metadata.object.clone(),
                        rule: rule.name.clone(),
                        target: target.value.clone(),
                        by: by.clone(),
                        keys: rule.max_keys.get(),
                    };
                    let keys = tables.get(identity.clone(), cores);
                    used.insert(identity);
                    // Each costs hundreds of bytes: memory ends long before 32 bits do.
                    let id = LimitId(limits.limits.len() as u32);
                    let name = format!("{}/{}", policy.metadata.object, rule.name);
                    limits.limits.push(limit(name, target_name(target), rule, by, keys, cores));
                    limits.by_target.entry(target.value.clone()).or_default().push(id);
                }
            }
        }
        tables.retain(&used);
        limits
    }

    /// The limits of requests that `rule` takes on `listener`, those of the Gateway first.
    pub(super) fn of(
        &self,
        listener: &ListenerInput<'_>,
        route: &HttpRoute,
        rule: &HttpRouteRule,
    ) -> Option<Box<[LimitId]>> {
        if self.limits.is_empty() {
            return None;
        }
        let gateway = |section| (RouteTargetKind::Gateway, &listener.gateway.metadata.object, section);
        let route = |section| (RouteTargetKind::HttpRoute, &route.metadata.object, section);
        let sections = [
            Some(gateway(None)),
            Some(gateway(Some(&listener.listener.name))),
            Some(route(None)),
            rule.name.as_ref().map(|name| route(Some(name))),
        ];
        let ids: Vec<LimitId> = sections
            .into_iter()
            .flatten()
            .filter_map(|(kind, object, section)| {
                self.by_target.get(&RouteTarget { kind, object: object.clone(), section_name: section.cloned() })
            })
            .flatten()
            .copied()
            .collect();
        (!ids.is_empty()).then(|| ids.into())
    }
}

fn limit(name: String, target: String, rule: &RateLimitRule, by: LimitKey, keys: Arc<KeyTable>, cores: usize) -> Limit {
    let (requests, seconds) = (rule.limit.requests.get(), rule.limit.unit.seconds());
    let cores = u16::try_from(cores).unwrap_or(u16::MAX);
    Limit {
        name: name.into(),
        target: target.into(),
        by,
        rate: LimitRate::new(requests, seconds, rule.limit.burst.get(), cores),
        policy_field: format!("\"{}\";q={requests};w={seconds}", rule.name).into(),
        limit_field: format!("\"{}\";r=0;t=", rule.name).into(),
        keys,
    }
}

fn target_name(target: &RouteTarget) -> String {
    let kind = match target.kind {
        RouteTargetKind::HttpRoute => "HTTPRoute",
        RouteTargetKind::Gateway => "Gateway",
    };
    match &target.section_name {
        Some(section) => format!("{kind}/{}/{section}", target.object),
        None => format!("{kind}/{}", target.object),
    }
}

fn key(by: &RateLimitKey) -> LimitKey {
    match by {
        RateLimitKey::All => LimitKey::All,
        RateLimitKey::SourceIp { ipv4_prefix, ipv6_prefix } => {
            LimitKey::Source { ipv4_prefix: ipv4_prefix.get(), ipv6_prefix: ipv6_prefix.get() }
        }
        RateLimitKey::Header { name } => LimitKey::Header(name.clone()),
        RateLimitKey::Cookie { name } => LimitKey::Cookie(name.clone()),
    }
}

/// The source lists of each Gateway that has one; `schema` lets no Gateway have two.
pub(super) fn sources(configuration: &Configuration) -> HashMap<&ObjectName, Arc<SourceTable>> {
    let mut found = HashMap::new();
    for policy in &configuration.security_policies {
        let nets = |list: &[schema::Located<ipnet::IpNet>]| list.iter().map(|net| net.value).collect::<Vec<_>>();
        let lists = &policy.spec.sources;
        let table = Arc::new(SourceTable::new(&nets(&lists.allow), &nets(&lists.deny)));
        found.extend(policy.spec.target_refs.iter().map(|gateway| (&gateway.value, Arc::clone(&table))));
    }
    found
}
