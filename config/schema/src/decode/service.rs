//! `Service.spec`, and the fields of an `EndpointSlice`.

use super::object::{Object, list, wrong_type};
use super::scalar::{address, boolean, choice, name, port, text};
use super::{At, Decoder};
use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::resources::{EndpointSlice, Metadata, ServicePort, SliceEndpoint, SlicePort};
use crate::yaml::Value;

/// Which Service a slice belongs to (Kubernetes `discoveryv1.LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What others do with a Service.
const OF_OTHERS: [&str; 19] = [
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];

/// `Service.spec`: its ports.
pub(super) fn spec(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Vec<Located<ServicePort>>> {
    let mut object = Object::open(decoder, at)?;
    let ports = object.list(decoder, "ports", service_port);
    for field in OF_OTHERS {
        object.ignored(field);
    }
    object.close(decoder);
    Some(counting(ports))
}

/// Those of a list that are something to us.
fn counting<T>(items: Vec<Located<Option<T>>>) -> Vec<Located<T>> {
    items.into_iter().filter_map(|item| Some(Located { value: item.value?, at: item.at })).collect()
}

/// `None` inside for what is not TCP.
fn service_port(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Option<ServicePort>> {
    let mut object = Object::open(decoder, at)?;
    let name = object.or(decoder, "name", "".into(), port_name);
    let number = object.required(decoder, "port", port);
    let tcp = object.or(decoder, "protocol", true, protocol);
    for field in ["appProtocol", "nodePort", "targetPort"] {
        object.ignored(field);
    }
    object.close(decoder);
    let port = ServicePort { name, port: number? };
    Some(tcp.then_some(port))
}

/// Whether it is TCP.
fn protocol(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<bool> {
    choice(decoder, at, &[("TCP", true), ("UDP", false), ("SCTP", false)])
}

/// The name of a port, which may be empty.
fn port_name(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    match &at.node.value {
        Value::String(text) if text.is_empty() => Some("".into()),
        Value::String(_) => name(decoder, at).map(|name| name.as_str().into()),
        other => {
            wrong_type(decoder, at, other, "a string");
            None
        }
    }
}

/// The fields of an EndpointSlice, which has no `spec`.
pub(super) fn slice(decoder: &mut Decoder<'_>, object: &mut Object<'_>, metadata: &Metadata) -> Option<EndpointSlice> {
    let kinds = [("IPv4", true), ("IPv6", true), ("FQDN", false)];
    let addresses = object.required(decoder, "addressType", |d, at| choice(d, at, &kinds));
    let endpoints = if addresses == Some(false) {
        object.ignored("endpoints");
        Vec::new()
    } else {
        object.list(decoder, "endpoints", endpoint)
    };
    let ports = object.list(decoder, "ports", slice_port);
    let service = metadata.labels.get(SERVICE_NAME);
    let service = match service.map(|service| Name::parse(service)) {
        Some(Ok(service)) => Some(service),
        Some(Err(_)) | None => {
            let at = object.at();
            let problem = format!("has no label {SERVICE_NAME} with the name of a Service");
            decoder.error(at, problem, "a slice belongs to a Service of its namespace by this label");
            None
        }
    };
    addresses?;
    Some(EndpointSlice {
        metadata: metadata.clone(),
        service: ObjectName { namespace: metadata.namespace().clone(), name: service? },
        endpoints: counting(endpoints),
        ports: counting(ports),
    })
}

/// `None` inside for one without an address.
fn endpoint(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Option<SliceEndpoint>> {
    let mut object = Object::open(decoder, at)?;
    let addresses = object.or(decoder, "addresses", Vec::new(), |d, at| list(d, at, address));
    let conditions = object.or(decoder, "conditions", (None, None, None), |decoder, at| {
        let mut object = Object::open(decoder, at)?;
        let conditions = ["ready", "serving", "terminating"].map(|name| object.optional(decoder, name, boolean));
        object.close(decoder);
        let [ready, serving, terminating] = conditions;
        Some((ready, serving, terminating))
    });
    let zone = object.optional(decoder, "zone", text).map(|zone| (*zone).into());
    for field in ["deprecatedTopology", "hints", "hostname", "nodeName", "targetRef"] {
        object.ignored(field);
    }
    object.close(decoder);
    let (ready, serving, terminating) = conditions;
    let ready = ready.unwrap_or(true);
    Some(addresses.first().map(|address| SliceEndpoint {
        address: address.value,
        ready,
        serving: serving.unwrap_or(ready),
        terminating: terminating.unwrap_or(false),
        zone,
    }))
}

/// `None` inside for what is not TCP, or has no number.
fn slice_port(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Option<SlicePort>> {
    let mut object = Object::open(decoder, at)?;
    let name = object.or(decoder, "name", "".into(), port_name);
    let number = object.optional(decoder, "port", port);
    let tcp = object.or(decoder, "protocol", true, protocol);
    object.ignored("appProtocol");
    object.close(decoder);
    Some(number.filter(|_| tcp).map(|port| SlicePort { name, port }))
}
