//! Backends and their endpoints.

use std::fmt::Write;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use schema::{
    ActiveHealthCheck, Backend, BackendKind, BackendPolicySpec, BackendTarget, Configuration, EndpointPlace,
    EndpointSlice, HashTable, HashedOn, HealthProbe, LoadBalancerType, ObjectName, Service, SessionPersistence,
};
use tables::{Affinity, CheckWay, Cluster, ClusterId, Endpoint, HashOn, Method, Probe, SessionCookie};

use super::{Compiler, Run};
use crate::endpoints::plan::{ClusterPlan, HealthRule, PlannedEndpoint, Readiness, SlowStart};
use crate::endpoints::select_ready;
use crate::names::{Resolutions, weights};

/// The label of an Appliance that says in which zone it is (Kubernetes' well-known one).
const ZONE: &str = "topology.kubernetes.io/zone";

/// Which cluster: the backend, the port that the reference names, and the route's own sessions.
pub(super) type ClusterKey = (BackendTarget, Option<NonZeroU16>, Option<SessionPersistence>);

/// An endpoint as the configuration has it.
struct Server {
    address: SocketAddr,
    weight: u32,
    priority: u8,
    zone: Arc<str>,
    readiness: Readiness,
    /// The DNS name that it comes from; empty where it comes from none.
    name: Arc<str>,
}

impl Run<'_> {
    pub(super) fn cluster(
        &mut self,
        kind: &BackendKind,
        object: &ObjectName,
        port: Option<NonZeroU16>,
        session: Option<&SessionPersistence>,
    ) -> ClusterId {
        let target = BackendTarget { kind: kind.clone(), object: object.clone() };
        let key = (target, port, session.cloned());
        if let Some(&id) = self.cluster_ids.get(&key) {
            return id;
        }
        let id = ClusterId(self.clusters.len() as u32);
        let cursor = self.compiler.cluster_cursors.id(&key, self.compiler.epoch).0;
        let (cluster, plan) = self.places.cluster(self.compiler, &key, cursor);
        self.clusters.push(cluster);
        self.plans.push(plan);
        self.keys.push(key.clone());
        self.cluster_ids.insert(key, id);
        id
    }
}

/// Where a configuration says what backends are.
pub(super) struct Places<'c> {
    configuration: &'c Configuration,
    backends: HashMap<&'c ObjectName, &'c Backend>,
    services: HashMap<&'c ObjectName, &'c Service>,
    /// Of each Service, in order of their names.
    slices: HashMap<&'c ObjectName, Vec<&'c EndpointSlice>>,
    policies: HashMap<&'c BackendTarget, &'c BackendPolicySpec>,
}

impl<'c> Places<'c> {
    pub(super) fn of(configuration: &'c Configuration) -> Self {
        let mut slices: HashMap<&ObjectName, Vec<&EndpointSlice>> = HashMap::new();
        for slice in &configuration.slices {
            slices.entry(&slice.service).or_default().push(slice);
        }
        for of_service in slices.values_mut() {
            of_service.sort_by_key(|slice| &slice.metadata.object);
        }
        let policies = configuration.backend_policies.iter();
        let of_policy = policies
            .flat_map(|policy| policy.spec.target_refs.iter().map(move |target| (&target.value, &policy.value.spec)));
        Self {
            configuration,
            backends: configuration.backends.iter().map(|b| (&b.metadata.object, &b.value)).collect(),
            services: configuration.services.iter().map(|s| (&s.metadata.object, &s.value)).collect(),
            slices,
            policies: of_policy.collect(),
        }
    }

    /// A cluster as it is by this configuration, with the addresses that the compiler's names have.
    pub(super) fn cluster(&self, compiler: &mut Compiler, key: &ClusterKey, cursor: u32) -> (Cluster, ClusterPlan) {
        let (target, port, session) = key;
        let object = &target.object;
        let backend = match target.kind {
            BackendKind::Service => format!("service/{object}"),
            _ => object.joined(),
        };
        let name = match port {
            Some(port) => format!("{backend}:{port}"),
            None => backend.clone(),
        };
        let policy = self.policies.get(target).copied();
        let session = session.as_ref().or_else(|| policy.and_then(|policy| policy.session_persistence.as_ref()));
        let servers = self.servers(&compiler.resolutions, target, *port);
        let plan = ClusterPlan {
            backend: backend.into(),
            name: name.into(),
            sessions: session.is_some(),
            ..self.plan(compiler, servers, object, policy)
        };
        let cluster = Cluster {
            name: Arc::clone(&plan.name),
            endpoints: plan.endpoints.iter().map(|planned| planned.endpoint).collect(),
            selection: Arc::new(select_ready(&plan)),
            affinity: affinity(policy, session).map(Box::new),
            cursor,
        };
        (cluster, plan)
    }

    /// `schema` lets no reference dangle, and no endpoint be without a port; a cluster without endpoints answers 503.
    fn servers(&self, resolutions: &Resolutions, target: &BackendTarget, port: Option<NonZeroU16>) -> Vec<Server> {
        if target.kind == BackendKind::Service {
            return self.service_servers(&target.object, port).unwrap_or_default();
        }
        let Some(backend) = self.backends.get(&target.object) else { return Vec::new() };
        let subset = backend.spec.subset.as_deref();
        let whole = subset.map_or(Some(backend), |subset| self.backends.get(&subset.of));
        let endpoints = whole.map(|whole| whole.spec.endpoints.as_slice()).unwrap_or_default();
        let endpoints = endpoints.iter().filter(|endpoint| subset.is_none_or(|subset| endpoint.is_in(subset)));
        let mut servers = Vec::new();
        for endpoint in endpoints {
            let at = |address, weight, priority, name| Server {
                address,
                weight,
                priority,
                zone: endpoint.zone.as_deref().unwrap_or_default().into(),
                readiness: Readiness::Ready,
                name,
            };
            match &endpoint.place {
                EndpointPlace::Address { address, port: own } => {
                    let port = own.or(port);
                    servers.extend(port.map(|port| {
                        at(SocketAddr::new(*address, port.get()), endpoint.weight, endpoint.priority, "".into())
                    }));
                }
                EndpointPlace::Fqdn { fqdn } => {
                    let resolved = resolutions.get(&fqdn.name).map(|all| &**all).unwrap_or_default();
                    for (resolved, (rank, weight)) in resolved.iter().zip(weights(resolved, endpoint.weight)) {
                        let of_record = resolved.service.as_ref().map(|service| service.port);
                        let Some(port) = of_record.or(fqdn.port.or(port).map(NonZeroU16::get)) else { continue };
                        let priority = endpoint.priority.saturating_add(rank);
                        let name = Arc::clone(&fqdn.name.hostname);
                        servers.push(at(SocketAddr::new(resolved.address, port), weight, priority, name));
                    }
                }
            }
        }
        // What is configured is checked to be there once; what DNS says may be there already.
        if servers.iter().any(|server| !server.name.is_empty()) {
            let mut seen = HashSet::new();
            servers.retain(|server| seen.insert(server.address));
        }
        servers
    }

    /// The endpoints behind a port of a Service, as kube-proxy takes them: those that are ready, and those that end but still serve.
    fn service_servers(&self, service: &ObjectName, port: Option<NonZeroU16>) -> Option<Vec<Server>> {
        let ports = &self.services.get(service)?.ports;
        let name = &ports.iter().find(|candidate| Some(candidate.port) == port)?.name;
        let mut servers = Vec::new();
        // While a slice is split, an endpoint may be in two of them.
        let mut seen = HashSet::new();
        for slice in self.slices.get(service).into_iter().flatten() {
            let Some(port) = slice.ports.iter().find(|candidate| candidate.name == *name) else { continue };
            for endpoint in &slice.endpoints {
                let readiness = match (endpoint.ready, endpoint.serving && endpoint.terminating) {
                    (true, _) => Readiness::Ready,
                    (false, true) => Readiness::Terminating,
                    (false, false) => continue,
                };
                let address = SocketAddr::new(endpoint.address, port.port.get());
                let zone = endpoint.zone.as_deref().unwrap_or_default().into();
                if seen.insert(address) {
                    servers.push(Server { address, weight: 1, priority: 0, zone, readiness, name: "".into() });
                }
            }
        }
        Some(servers)
    }

    /// All but the names.
    fn plan(
        &self,
        compiler: &mut Compiler,
        servers: Vec<Server>,
        backend: &ObjectName,
        policy: Option<&BackendPolicySpec>,
    ) -> ClusterPlan {
        let prefer_local = policy.is_some_and(|policy| policy.load_balancer.prefer_local);
        let here = self.configuration.appliance.metadata.labels.get(ZONE).filter(|_| prefer_local);
        let endpoints = servers
            .into_iter()
            .map(|Server { address, weight, priority, zone, readiness, name }| {
                let elsewhere = here.is_some_and(|here| !zone.is_empty() && *here != *zone);
                PlannedEndpoint {
                    endpoint: Endpoint { id: compiler.endpoint_id(address), address, weight },
                    level: u32::from(priority) * 2 + u32::from(elsewhere),
                    readiness,
                    zone,
                    name,
                    check: None,
                }
            })
            .collect();
        let slow_start = policy.and_then(|policy| policy.load_balancer.slow_start);
        let active = policy.and_then(|policy| policy.health_check.active.as_ref());
        ClusterPlan {
            backend: "".into(),
            name: "".into(),
            method: policy.map_or(Method::RoundRobin, |policy| method(&policy.load_balancer.method)),
            endpoints,
            sessions: false,
            slow_start: slow_start
                .map(|slow| SlowStart { window: slow.window, min_weight_percent: slow.min_weight_percent }),
            panic_threshold: policy.map_or(50, |policy| policy.health_check.panic_threshold),
            check: active.map(|active| health_rule(active, backend)),
        }
    }
}

fn method(given: &LoadBalancerType) -> Method {
    match given {
        LoadBalancerType::RoundRobin => Method::RoundRobin,
        LoadBalancerType::Random => Method::Random,
        LoadBalancerType::LeastRequest => Method::LeastRequest,
        LoadBalancerType::PeakEwma => Method::PeakEwma,
        LoadBalancerType::SourceIpHash => Method::Modulo,
        LoadBalancerType::ConsistentHash { table: HashTable::Maglev, seed, .. } => Method::Maglev(*seed),
        LoadBalancerType::ConsistentHash {
            table: HashTable::RingHash { minimum_ring_size, maximum_ring_size },
            seed,
            ..
        } => Method::Ring(*seed, *minimum_ring_size, *maximum_ring_size),
    }
}

/// What of a request has to be looked at.
fn affinity(policy: Option<&BackendPolicySpec>, session: Option<&SessionPersistence>) -> Option<Affinity> {
    let bytes = |text: &str| text.as_bytes().into();
    let (hash_on, seed) = match policy.map(|policy| &policy.load_balancer.method) {
        Some(LoadBalancerType::SourceIpHash) => (Some(HashOn::SourceIp), 0),
        Some(LoadBalancerType::ConsistentHash { on, seed, .. }) => {
            let on = match on {
                HashedOn::SourceIp => HashOn::SourceIp,
                HashedOn::Header(name) => HashOn::Header(bytes(name)),
                HashedOn::Cookie(name) => HashOn::Cookie(bytes(name)),
                HashedOn::QueryParam(name) => HashOn::QueryParam(bytes(name)),
            };
            (Some(on), *seed)
        }
        _ => (None, 0),
    };
    let session = session.map(|persistence| {
        let age = persistence.permanent.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
        SessionCookie {
            name: bytes(&persistence.session_name),
            attributes: bytes(&format!("; Path=/; HttpOnly; SameSite=Lax{age}")),
        }
    });
    (hash_on.is_some() || session.is_some()).then_some(Affinity { hash_on, seed, session })
}

fn health_rule(active: &ActiveHealthCheck, backend: &ObjectName) -> HealthRule {
    let probe = match &active.probe {
        HealthProbe::Tcp => Probe::Tcp,
        HealthProbe::Http { path, method, hostname, expected_statuses } => {
            let host = hostname.as_deref().unwrap_or(backend.name.as_str());
            let mut request = String::new();
            // Writing to a String cannot fail.
            let _ = write!(
                request,
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: millrace-health\r\nConnection: close\r\n\r\n"
            );
            Probe::Http(request.into_bytes().into(), expected_statuses.as_slice().into())
        }
        HealthProbe::Grpc { service } => {
            Probe::Grpc { authority: backend.name.as_str().into(), service: service.clone() }
        }
    };
    HealthRule {
        way: Arc::new(CheckWay { interval: active.interval, timeout: active.timeout, probe }),
        unhealthy_threshold: active.unhealthy_threshold,
        healthy_threshold: active.healthy_threshold,
    }
}

#[cfg(test)]
mod tests;
