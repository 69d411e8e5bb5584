//! How Gateways and routes stand, in the Gateway API's words.

use std::collections::BTreeSet;

use schema::{Configuration, HttpRoute, ParentRef};

use super::ListenerInput;
use super::references::References;
use super::routes::hosts_of;
use crate::status::{
    Condition, ConditionKind, ConditionStatus, GatewayStatus, ListenerStatus, ParentStatus, RouteStatus,
};

/// A route and what it attaches to.
pub(super) struct Attachment<'c> {
    pub(super) route: &'c HttpRoute,
    pub(super) parents: Vec<Parent>,
}

/// One `parentRef` of a route.
pub(super) struct Parent {
    name: String,
    /// Positions of the listeners that serve the route.
    pub(super) listeners: Vec<usize>,
    accepted: Condition,
}

/// Finds the listeners that a `parentRef` attaches its route to.
pub(super) fn parent(
    configuration: &Configuration,
    route: &HttpRoute,
    reference: &ParentRef,
    listeners: &[ListenerInput<'_>],
    conflicted: &BTreeSet<usize>,
) -> Parent {
    let referred = |l: &ListenerInput<'_>| {
        l.gateway.metadata.object == reference.gateway
            && reference.section_name.as_ref().is_none_or(|name| *name == l.listener.name)
            && reference.port.is_none_or(|port| port == l.listener.port)
    };
    let mut found: Vec<(usize, &ListenerInput<'_>)> =
        listeners.iter().enumerate().filter(|(_, l)| referred(l)).collect();
    let mut rejected = None;
    // The first step that leaves nothing is the reason.
    let mut narrow = |reason, message, keep: &dyn Fn(usize, &ListenerInput<'_>) -> bool| {
        found.retain(|&(index, listener)| keep(index, listener));
        if found.is_empty() && rejected.is_none() {
            rejected = Some((reason, message));
        }
    };
    narrow("NoMatchingParent", "the Gateway has no listener of this sectionName and port", &|_, _| true);
    narrow("NotAllowedByListeners", "the listeners take no routes from this namespace", &|_, l| {
        configuration.takes_routes_from(l.gateway, l.listener, route.metadata.namespace())
    });
    narrow("NoMatchingListenerHostname", "no hostname of the route is one that a listener serves", &|_, l| {
        !hosts_of(route, l.listener.hostname.as_deref()).is_empty()
    });
    narrow("NoMatchingParent", "the listener is in conflict with another", &|i, _| !conflicted.contains(&i));
    Parent {
        name: parent_name(reference),
        listeners: found.iter().map(|&(index, _)| index).collect(),
        accepted: match rejected {
            None => Condition::holds(ConditionKind::Accepted),
            Some((reason, message)) => Condition::new(ConditionKind::Accepted, ConditionStatus::False, reason, message),
        },
    }
}

/// Conditions of all Gateways, in the configuration's order.
pub(super) fn gateways(
    configuration: &Configuration,
    listeners: &[ListenerInput<'_>],
    conflicted: &BTreeSet<usize>,
    attachments: &[Attachment<'_>],
) -> Vec<GatewayStatus> {
    configuration
        .gateways
        .iter()
        .map(|gateway| {
            let own: Vec<_> = listeners
                .iter()
                .enumerate()
                .filter(|(_, l)| l.gateway.metadata.object == gateway.metadata.object)
                .collect();
            let bad = own.iter().filter(|(index, _)| conflicted.contains(index)).count();
            let conditions = if bad == 0 {
                vec![Condition::holds(ConditionKind::Accepted), Condition::holds(ConditionKind::Programmed)]
            } else {
                // As the Gateway API has it: valid as long as one listener is.
                let some = if bad < own.len() { ConditionStatus::True } else { ConditionStatus::False };
                let message = format!("{bad} of {} listeners are in conflict", own.len());
                let programmed = match some {
                    ConditionStatus::True => Condition::holds(ConditionKind::Programmed),
                    ConditionStatus::False => {
                        Condition::new(ConditionKind::Programmed, some, "Invalid", "no listener is valid")
                    }
                };
                vec![Condition::new(ConditionKind::Accepted, some, "ListenersNotValid", message), programmed]
            };
            GatewayStatus {
                name: gateway.metadata.object.to_string(),
                addresses: configuration.gateway_addresses(gateway).iter().map(ToString::to_string).collect(),
                conditions,
                listeners: own
                    .into_iter()
                    .map(|(index, l)| listener(index, l, conflicted.contains(&index), attachments))
                    .collect(),
            }
        })
        .collect()
}

/// Conditions of all routes, in the configuration's order.
pub(super) fn routes(references: &References<'_>, attachments: &[Attachment<'_>]) -> Vec<RouteStatus> {
    attachments
        .iter()
        .map(|attachment| {
            let invalid = references.invalid(attachment.route);
            let resolved = match invalid.first() {
                None => Condition::holds(ConditionKind::ResolvedRefs),
                Some((first, _)) => {
                    let mut each: Vec<_> =
                        invalid.iter().map(|(why, what)| format!("{what}: {}", why.reason())).collect();
                    each.dedup();
                    let message = each.join(", ");
                    Condition::new(ConditionKind::ResolvedRefs, ConditionStatus::False, first.reason(), message)
                }
            };
            RouteStatus {
                name: attachment.route.metadata.object.joined(),
                hostnames: attachment.route.spec.hostnames.iter().map(|h| h.to_string()).collect(),
                parents: attachment
                    .parents
                    .iter()
                    .map(|parent| ParentStatus {
                        parent: parent.name.clone(),
                        conditions: vec![parent.accepted.clone(), resolved.clone()],
                    })
                    .collect(),
            }
        })
        .collect()
}

fn listener(
    index: usize,
    input: &ListenerInput<'_>,
    conflicted: bool,
    attachments: &[Attachment<'_>],
) -> ListenerStatus {
    use ConditionKind::{Accepted, Conflicted, Programmed, ResolvedRefs};
    use ConditionStatus::{False, True};
    let message = "a listener of an older Gateway has this address, port and hostname";
    let conditions = if conflicted {
        vec![
            Condition::new(Accepted, False, "HostnameConflict", message),
            Condition::new(Programmed, False, "Invalid", message),
            Condition::holds(ResolvedRefs),
            Condition::new(Conflicted, True, "HostnameConflict", message),
        ]
    } else {
        vec![
            Condition::holds(Accepted),
            Condition::holds(Programmed),
            Condition::holds(ResolvedRefs),
            Condition::new(Conflicted, False, "NoConflicts", ""),
        ]
    };
    ListenerStatus {
        name: input.listener.name.to_string(),
        port: input.listener.port.get(),
        protocol: match input.listener.protocol {
            schema::Protocol::Http => "HTTP".to_owned(),
        },
        hostname: input.listener.hostname.as_ref().map_or_else(|| "*".to_owned(), |h| h.to_string()),
        attached_routes: attachments.iter().filter(|a| a.parents.iter().any(|p| p.listeners.contains(&index))).count(),
        conditions,
    }
}

fn parent_name(reference: &ParentRef) -> String {
    let mut name = reference.gateway.joined();
    if let Some(section) = &reference.section_name {
        name = format!("{name}/{section}");
    }
    if let Some(port) = reference.port {
        name = format!("{name}:{port}");
    }
    name
}
