//! Backends and their endpoints.

use std::fmt::Write;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use schema::{ActiveHealthCheck, BackendPolicySpec, HashTable, HashedOn, HealthProbe, LoadBalancerType, ObjectName};
use tables::{Affinity, CheckWay, Cluster, ClusterId, Endpoint, HashOn, Method, Probe, SessionCookie};

use super::Run;
use crate::endpoints::plan::{ClusterPlan, HealthRule, PlannedEndpoint, Readiness, SlowStart};
use crate::endpoints::select_ready;

/// The label of an Appliance that says in which zone it is (Kubernetes' well-known one).
const ZONE: &str = "topology.kubernetes.io/zone";

impl Run<'_> {
    pub(super) fn cluster(&mut self, backend: &ObjectName, port: Option<NonZeroU16>) -> ClusterId {
        if let Some(&id) = self.cluster_ids.get(&(backend.clone(), port)) {
            return id;
        }
        let name = match port {
            Some(port) => format!("{backend}:{port}"),
            None => backend.to_string(),
        };
        let policy = self.policies.get(backend).copied();
        let plan = self.plan(backend, port, name.into(), policy);
        let id = ClusterId(self.clusters.len() as u32);
        self.clusters.push(Cluster {
            name: Arc::clone(&plan.name),
            endpoints: plan.endpoints.iter().map(|planned| planned.endpoint).collect(),
            selection: Arc::new(select_ready(&plan)),
            affinity: policy.and_then(affinity).map(Box::new),
        });
        self.plans.push(plan);
        self.cluster_ids.insert((backend.clone(), port), id);
        id
    }

    fn plan(
        &mut self,
        backend: &ObjectName,
        port: Option<NonZeroU16>,
        name: Arc<str>,
        policy: Option<&BackendPolicySpec>,
    ) -> ClusterPlan {
        let prefer_local = policy.is_some_and(|policy| policy.load_balancer.prefer_local);
        let here = self.configuration.appliance.metadata.labels.get(ZONE).filter(|_| prefer_local);
        // `schema` lets no reference dangle, and no endpoint be without a port; a cluster without endpoints answers 503.
        let endpoints = self.backends.get(backend).map(|b| b.spec.endpoints.as_slice()).unwrap_or_default();
        let endpoints = endpoints
            .iter()
            .filter_map(|endpoint| {
                let address = SocketAddr::new(endpoint.address, endpoint.port.or(port)?.get());
                let zone: Arc<str> = endpoint.zone.as_deref().unwrap_or_default().into();
                let elsewhere = here.is_some_and(|here| !zone.is_empty() && *here != *zone);
                Some(PlannedEndpoint {
                    endpoint: Endpoint { id: self.compiler.endpoint_id(address), address, weight: endpoint.weight },
                    level: u32::from(endpoint.priority) * 2 + u32::from(elsewhere),
                    readiness: Readiness::Ready,
                    zone,
                    check: None,
                })
            })
            .collect();
        let slow_start = policy.and_then(|policy| policy.load_balancer.slow_start);
        let active = policy.and_then(|policy| policy.health_check.active.as_ref());
        ClusterPlan {
            backend: backend.to_string().into(),
            name,
            method: policy.map_or(Method::RoundRobin, |policy| method(&policy.load_balancer.method)),
            endpoints,
            sessions: policy.is_some_and(|policy| policy.session_persistence.is_some()),
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
fn affinity(policy: &BackendPolicySpec) -> Option<Affinity> {
    let bytes = |text: &str| text.as_bytes().into();
    let (hash_on, seed) = match &policy.load_balancer.method {
        LoadBalancerType::SourceIpHash => (Some(HashOn::SourceIp), 0),
        LoadBalancerType::ConsistentHash { on, seed, .. } => {
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
    let session = policy.session_persistence.as_ref().map(|persistence| {
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
