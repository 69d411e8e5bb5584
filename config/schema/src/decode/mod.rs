//! From the tree of one document to a resource, collecting every error on the way.
//!
//! Decoding is lenient where that finds more errors: a field that is wrong is reported and then
//! treated as absent, an item that is wrong is left out of its list. What comes out is therefore only
//! worth something while nothing was reported; [`crate::load`] sees to that.

mod appliance;
mod backend;
mod backend_policy;
mod dns;
mod exception;
mod filter;
mod gateway;
mod interface;
mod matching;
mod metadata;
mod object;
mod policy;
pub(crate) mod reference;
mod route;
mod scalar;
mod service;

use std::sync::Arc;

use crate::error::{Found, printable};
use crate::located::{Located, Location};
use crate::name::ObjectName;
use crate::resources::{
    Appliance, Backend, BackendPolicy, EndpointSlice, Gateway, HttpRoute, Namespace, ReferenceGrant, RoutePolicy,
    SecurityPolicy, Service,
};
use crate::yaml::{Mark, Node};
use crate::{GATEWAY_GROUP, MILLRACE_GROUP};
use object::Object;
pub(crate) use object::closest;
pub(crate) use scalar::not_of_a_host;
use scalar::{choice, text};

/// What a document turned out to be.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// `None` if that is wrong: it may be meant to be any.
    pub(crate) kind: Option<Kind>,
    /// Its name, and where that stands; `None` if it is wrong.
    pub(crate) name: Option<Located<ObjectName>>,
    /// As much of it as could be made out.
    pub(crate) resource: Option<Resource>,
    /// The fields that something was wrong with.
    wrong: Vec<Box<str>>,
    root: Node,
}

impl Decoded {
    /// Whether all within `field` was right, so that what others say of it can be judged.
    pub(crate) fn is_sound(&self, field: &str) -> bool {
        let within = |whole: &str, part: &str| {
            part.strip_prefix(whole)
                .is_some_and(|rest| whole.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
        };
        !self.wrong.iter().any(|wrong| within(field, wrong) || within(wrong, field))
    }

    /// The place of the field `name` of what stands at `parent`; that of `parent` if it is not given.
    pub(crate) fn place(&self, parent: &Location, name: &str) -> Location {
        let field = format!("{}.{name}", parent.field);
        let (line, column) = match self.root.find(&field) {
            Some(mark) => (mark.line, mark.column),
            None => (parent.line, parent.column),
        };
        Location { file: Arc::clone(&parent.file), line, column, field: field.into() }
    }
}

/// A resource.
#[derive(Debug)]
pub(crate) enum Resource {
    Appliance(Box<Located<Appliance>>),
    Gateway(Located<Gateway>),
    Route(Located<HttpRoute>),
    Backend(Located<Backend>),
    ReferenceGrant(Located<ReferenceGrant>),
    Namespace(Located<Namespace>),
    BackendPolicy(Located<BackendPolicy>),
    Service(Located<Service>),
    EndpointSlice(Located<EndpointSlice>),
    RoutePolicy(Located<RoutePolicy>),
    SecurityPolicy(Located<SecurityPolicy>),
}

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Appliance,
    Gateway,
    HttpRoute,
    Backend,
    Namespace,
    ReferenceGrant,
    BackendPolicy,
    Service,
    EndpointSlice,
    RoutePolicy,
    SecurityPolicy,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Appliance,
        Kind::Backend,
        Kind::BackendPolicy,
        Kind::EndpointSlice,
        Kind::Gateway,
        Kind::HttpRoute,
        Kind::Namespace,
        Kind::ReferenceGrant,
        Kind::RoutePolicy,
        Kind::SecurityPolicy,
        Kind::Service,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Appliance => "Appliance",
            Kind::Gateway => "Gateway",
            Kind::HttpRoute => "HTTPRoute",
            Kind::Backend => "Backend",
            Kind::Namespace => "Namespace",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::BackendPolicy => "BackendPolicy",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::RoutePolicy => "RoutePolicy",
            Kind::SecurityPolicy => "SecurityPolicy",
        }
    }

    fn api_version(self) -> String {
        match self {
            Kind::Appliance | Kind::Backend | Kind::BackendPolicy | Kind::RoutePolicy | Kind::SecurityPolicy => {
                format!("{MILLRACE_GROUP}/v1alpha1")
            }
            Kind::Gateway | Kind::HttpRoute | Kind::ReferenceGrant => format!("{GATEWAY_GROUP}/v1"),
            Kind::Namespace | Kind::Service => "v1".to_owned(),
            Kind::EndpointSlice => "discovery.k8s.io/v1".to_owned(),
        }
    }
}

/// Kinds of DESIGN.md §4 that later releases take.
const LATER_KINDS: [&str; 7] =
    ["BackendTLSPolicy", "GRPCRoute", "GatewayClass", "Secret", "TCPRoute", "TLSRoute", "UDPRoute"];

/// Decodes one document. `None` if it is of a kind that later releases take, so that nothing here is
/// about it but that. `complete` says that the parser had nothing to leave out.
pub(crate) fn document(file: &Arc<str>, root: Node, complete: bool, found: &mut Found) -> Option<Decoded> {
    let before = found.len();
    let mut decoder = Decoder { file, found };
    let at = At { node: &root, path: &Path::Root };
    let (kind, name, resource) = decoder.resource(at)?;
    let mut wrong = found.fields_since(before);
    if !complete {
        wrong.push("".into());
    }
    Some(Decoded { kind, name, resource, wrong, root })
}

type Parts = (Option<Kind>, Option<Located<ObjectName>>, Option<Resource>);

/// A kind that later releases take.
struct Later;

/// Where the errors of a document go.
pub(crate) struct Decoder<'a> {
    file: &'a Arc<str>,
    found: &'a mut Found,
}

/// A value to be decoded.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: &'a Path<'a>,
}

/// The way from the document's root to a field.
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn render(&self) -> Box<str> {
        let mut out = String::new();
        self.write(&mut out);
        out.into()
    }

    // Recursion is as deep as the document, which the parser bounds.
    fn write(&self, out: &mut String) {
        match self {
            Path::Root => {}
            Path::Field(parent, name) => {
                parent.write(out);
                if !out.is_empty() {
                    out.push('.');
                }
                out.extend(name.chars().take(64).map(printable));
            }
            Path::Item(parent, index) => {
                parent.write(out);
                out.push_str(&format!("[{index}]"));
            }
        }
    }
}

impl Decoder<'_> {
    /// Kind, name and value of a document, as far as they can be made out.
    fn resource(&mut self, at: At<'_>) -> Option<Parts> {
        let Some(mut object) = Object::open(self, at) else {
            return Some((None, None, None));
        };
        let api_version = object.required(self, "apiVersion", text);
        let kind = object.required(self, "kind", |decoder, at| decoder.kind(at, api_version.as_deref()));
        let kind = match kind {
            Some(Ok(kind)) => Some(kind),
            Some(Err(Later)) => return None,
            None => None,
        };
        let metadata = object.required(self, "metadata", metadata::metadata);
        let name = metadata.as_ref().and_then(|(name, _)| name.clone());
        let Some(kind) = kind else {
            // Which fields there may be is not known, so nothing more is said about them.
            return Some((None, name, None));
        };
        let metadata = metadata.map_or_else(metadata::placeholder, |(_, metadata)| metadata);
        object.ignored("status");
        let at = self.location(at);
        let resource = match kind {
            Kind::Appliance => object
                .required(self, "spec", appliance::spec)
                .map(|spec| Resource::Appliance(Box::new(Located::new(Appliance { metadata, spec }, at)))),
            Kind::Gateway => object
                .required(self, "spec", gateway::spec)
                .map(|spec| Resource::Gateway(Located::new(Gateway { metadata, spec }, at))),
            Kind::HttpRoute => object
                .required(self, "spec", |decoder, at| route::spec(decoder, at, metadata.namespace()))
                .map(|spec| {
                    let metadata = metadata.clone();
                    Resource::Route(Located::new(HttpRoute { metadata, spec }, at))
                }),
            Kind::Backend => object
                .required(self, "spec", |decoder, at| backend::spec(decoder, at, metadata.namespace()))
                .map(|spec| {
                    let metadata = metadata.clone();
                    Resource::Backend(Located::new(Backend { metadata, spec }, at))
                }),
            Kind::Service => object.required(self, "spec", service::spec).map(|ports| {
                let metadata = metadata.clone();
                Resource::Service(Located::new(Service { metadata, ports }, at))
            }),
            Kind::EndpointSlice => service::slice(self, &mut object, &metadata)
                .map(|slice| Resource::EndpointSlice(Located::new(slice, at))),
            Kind::Namespace => {
                object.ignored("spec");
                Some(Resource::Namespace(Located::new(Namespace { metadata }, at)))
            }
            Kind::ReferenceGrant => object
                .required(self, "spec", reference::grant)
                .map(|spec| Resource::ReferenceGrant(Located::new(ReferenceGrant { metadata, spec }, at))),
            Kind::BackendPolicy => object
                .required(self, "spec", |decoder, at| backend_policy::spec(decoder, at, metadata.namespace()))
                .map(|spec| {
                    let metadata = metadata.clone();
                    Resource::BackendPolicy(Located::new(BackendPolicy { metadata, spec }, at))
                }),
            Kind::RoutePolicy => object
                .required(self, "spec", |decoder, at| policy::route_policy(decoder, at, metadata.namespace()))
                .map(|spec| {
                    let metadata = metadata.clone();
                    Resource::RoutePolicy(Located::new(RoutePolicy { metadata, spec }, at))
                }),
            Kind::SecurityPolicy => object
                .required(self, "spec", |decoder, at| policy::security_policy(decoder, at, metadata.namespace()))
                .map(|spec| {
                    let metadata = metadata.clone();
                    Resource::SecurityPolicy(Located::new(SecurityPolicy { metadata, spec }, at))
                }),
        };
        object.close(self);
        Some((Some(kind), name, resource))
    }

    fn kind(&mut self, at: At<'_>, api_version: Option<&str>) -> Option<Result<Kind, Later>> {
        let name = text(self, at)?;
        if LATER_KINDS.contains(&&*name) {
            self.unsupported(at, &format!("kind {name}"));
            return Some(Err(Later));
        }
        let choices = Kind::ALL.map(|kind| (kind.name(), kind));
        let kind = choice(self, at, &choices)?;
        let expected = kind.api_version();
        if let Some(given) = api_version
            && given != expected
            // It was of v1beta1 before, and is the same.
            && !(kind == Kind::ReferenceGrant && given == format!("{GATEWAY_GROUP}/v1beta1"))
        {
            let problem = format!("{} is not of apiVersion {}", kind.name(), quote(given));
            self.error(at, problem, format!("apiVersion: {expected}"));
        }
        Some(Ok(kind))
    }

    pub(crate) fn location(&self, at: At<'_>) -> Location {
        self.place(at.node.at, at.path)
    }

    pub(crate) fn place(&self, mark: Mark, path: &Path<'_>) -> Location {
        Location { file: Arc::clone(self.file), line: mark.line, column: mark.column, field: path.render() }
    }

    /// Reports that `at` is wrong, and what would be right.
    pub(crate) fn error(&mut self, at: At<'_>, problem: impl Into<String>, hint: impl Into<String>) {
        let place = self.location(at);
        self.found.hinted(&place, problem, hint);
    }

    /// Reports something that the Gateway API or the design has and this release has not.
    pub(crate) fn unsupported(&mut self, at: At<'_>, what: &str) {
        self.error(at, format!("not supported yet: {what}"), "leave it out; a later release takes it");
    }

    /// Decodes `at` and keeps where it stood.
    pub(crate) fn located<T>(
        &mut self,
        at: At<'_>,
        decode: impl FnOnce(&mut Self, At<'_>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = decode(self, at)?;
        Some(Located::new(value, self.location(at)))
    }
}

/// `text` in quotes, shortened if it is long, without what a terminal would act upon.
pub(crate) fn quote(text: &str) -> String {
    let short = short(text);
    let whole = short.strip_suffix('…').unwrap_or(&short);
    let more = if whole.len() < short.len() { "…" } else { "" };
    format!("{whole:?}{more}")
}

/// The start of `text`.
pub(crate) fn short(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
