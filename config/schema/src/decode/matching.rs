//! `HTTPRoute.spec.rules[].matches[]`.

use super::object::{Object, at_most};
use super::scalar::{choice, text};
use super::{At, Decoder, quote};
use crate::expression::Expression;
use crate::located::Located;
use crate::resources::{HttpPathMatch, HttpRouteMatch, HttpValueMatch, ValueMatch};

/// Longest path to match (Gateway API `HTTPPathMatch.value`).
const MAX_PATH: usize = 1024;

/// Most header fields, and most query parameters, of a match.
const MAX_VALUES: usize = 16;

/// Most regular expressions of a configuration. A request may have to be compared with all of them, and each may take half a
/// mebibyte.
const MAX_EXPRESSIONS: usize = 512;

/// Matches every request.
pub(super) fn everything() -> HttpRouteMatch {
    let path = HttpPathMatch::PathPrefix("/".into());
    HttpRouteMatch { path, headers: Vec::new(), query_params: Vec::new(), method: None }
}

pub(super) fn route_match(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpRouteMatch> {
    let mut object = Object::open(decoder, at)?;
    let path = object.or(decoder, "path", Some(everything().path), |d, at| Some(path(d, at)));
    let mut headers = object.list(decoder, "headers", header);
    let mut query_params = object.list(decoder, "queryParams", parameter);
    let method = object.optional(decoder, "method", |d, at| Some(method(d, at)));
    object.close(decoder);
    at_most(decoder, MAX_VALUES, &mut headers);
    at_most(decoder, MAX_VALUES, &mut query_params);
    unique(decoder, &headers, "header field", |name| name.to_ascii_lowercase());
    unique(decoder, &query_params, "query parameter", str::to_owned);
    let method = match method {
        None => None,
        Some(method) => Some(method?),
    };
    Some(HttpRouteMatch { path: path?, headers, query_params, method })
}

/// The Gateway API has the second one of a name ignored; here that is an error, because nobody can have meant it.
fn unique(decoder: &mut Decoder<'_>, values: &[Located<HttpValueMatch>], what: &str, key: fn(&str) -> String) {
    for (index, value) in values.iter().enumerate() {
        let mut before = values.iter().take(index);
        if before.any(|other| key(&other.name) == key(&value.name)) {
            let hint = "all matches of a list have to hold: put alternatives into matches of their own";
            decoder.found.hinted(&value.at, format!("a second match of the {what} {}", quote(&value.name)), hint);
        }
    }
}

fn method(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<&'static str> {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    if matches!(&*text(decoder, at)?, "CONNECT" | "TRACE") {
        decoder.error(at, "CONNECT and TRACE are never served", "they are answered 405 before any route is looked up");
        return None;
    }
    choice(decoder, at, &METHODS.map(|method| (method, method)))
}

/// How a value is compared.
#[derive(Clone, Copy)]
enum How {
    Exact,
    Expression,
}

const TYPES: [(&str, How); 2] = [("Exact", How::Exact), ("RegularExpression", How::Expression)];

fn header(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpValueMatch> {
    value_match(decoder, at, field_value)
}

fn parameter(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpValueMatch> {
    const LONGEST: usize = 1024;
    value_match(decoder, at, |decoder, at| {
        let value = text(decoder, at)?;
        if value.is_empty() || value.len() > LONGEST {
            decoder.error(at, "is not of 1 to 1024 bytes", "the value of the parameter, decoded");
            return None;
        }
        Some((*value).into())
    })
}

fn value_match(
    decoder: &mut Decoder<'_>,
    at: At<'_>,
    exact: fn(&mut Decoder<'_>, At<'_>) -> Option<Box<str>>,
) -> Option<HttpValueMatch> {
    let mut object = Object::open(decoder, at)?;
    let how = object.or(decoder, "type", Some(How::Exact), |d, at| Some(choice(d, at, &TYPES)));
    let name = object.required(decoder, "name", field_name);
    let value = object.required(decoder, "value", |decoder, at| match how {
        Some(How::Exact) => exact(decoder, at).map(ValueMatch::Exact),
        Some(How::Expression) => expression(decoder, at).map(ValueMatch::RegularExpression),
        // Which is meant is not known.
        None => None,
    });
    object.close(decoder);
    Some(HttpValueMatch { name: name?, value: value? })
}

/// The name of a header field or query parameter (Gateway API `HTTPHeaderName`).
pub(super) fn field_name(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    const LONGEST: usize = 256;
    let name = text(decoder, at)?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.len() > LONGEST {
        "is longer than 256 bytes"
    } else if !name.bytes().all(token) {
        "is not a token"
    } else {
        return Some((*name).into());
    };
    decoder.error(at, format!("{} {wrong}", quote(&name)), "letters, digits and !#$%&'*+-.^_`|~, as in x-user");
    None
}

/// The value of a header field: what RFC 9110 §5.5 allows, in ASCII.
pub(super) fn field_value(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    const LONGEST: usize = 4096;
    let value = text(decoder, at)?;
    let (wrong, hint) = if value.is_empty() {
        ("is empty", "at least one character")
    } else if value.len() > LONGEST {
        ("is longer than 4096 bytes", "shorten it")
    } else if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
        ("starts or ends with whitespace", "whitespace around a value is not part of it")
    } else if !value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')) {
        ("has characters that a header field cannot have", "visible ASCII, spaces and tabs")
    } else {
        return Some((*value).into());
    };
    decoder.error(at, format!("{} {wrong}", quote(&value)), hint);
    None
}

fn path(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpPathMatch> {
    type Make = fn(&mut Decoder<'_>, At<'_>) -> Option<HttpPathMatch>;
    const EXACT: Make = |d, at| path_value(d, at).map(HttpPathMatch::Exact);
    const PREFIX: Make = |d, at| path_value(d, at).map(HttpPathMatch::PathPrefix);
    const EXPRESSION: Make = |d, at| expression(d, at).map(HttpPathMatch::RegularExpression);
    const TYPES: [(&str, Make); 3] = [("Exact", EXACT), ("PathPrefix", PREFIX), ("RegularExpression", EXPRESSION)];
    let mut object = Object::open(decoder, at)?;
    let make = object.or(decoder, "type", Some(PREFIX), |d, at| Some(choice(d, at, &TYPES)));
    // A value of a type that is wrong is compared with what all types but one ask for.
    let value = object.optional(decoder, "value", |decoder, at| Some(make.unwrap_or(PREFIX)(decoder, at)));
    object.close(decoder);
    match value {
        Some(value) => make.and(value),
        None => Some(everything().path),
    }
}

/// A regular expression.
fn expression(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Expression> {
    let given = text(decoder, at)?;
    decoder.found.expressions += 1;
    if decoder.found.expressions > MAX_EXPRESSIONS {
        let problem = format!("is the {}th regular expression of the configuration", decoder.found.expressions);
        decoder.error(at, problem, format!("there can be {MAX_EXPRESSIONS}; other matches are faster, too"));
        return None;
    }
    match Expression::parse(&given) {
        Ok(expression) => Some(expression),
        Err(wrong) => {
            let hint = "the syntax is that of RE2, in ASCII; smaller bounds of repetitions make it smaller";
            decoder.error(at, format!("{} {wrong}", quote(&given)), hint);
            None
        }
    }
}

/// What the Gateway API's validation asks of `HTTPPathMatch.value`.
pub(super) fn path_value(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    let path = text(decoder, at)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    let mut escapes = path.split('%').skip(1);
    let escaped = |escape: &str| escape.get(..2).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let lower = path.to_ascii_lowercase();
    let (wrong, hint) = if !path.starts_with('/') {
        ("does not start with /", format!("did you mean {}?", quote(&format!("/{path}"))))
    } else if path.len() > MAX_PATH {
        ("is longer than 1024 bytes", "match a shorter prefix".into())
    } else if let Some(at) = path.find(['?', '#']) {
        let hint = format!("did you mean {}?", quote(path.get(..at).unwrap_or("/")));
        ("has a query or a fragment", hint)
    } else if path.contains("//") {
        ("has an empty segment", "write single slashes".into())
    } else if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        ("has a . or .. segment", "write the path as it is after they are resolved".into())
    } else if lower.contains("%2f") {
        ("has an encoded slash", "write /".into())
    } else if !path.bytes().all(allowed) || !escapes.all(escaped) {
        ("has characters that a path cannot have", "percent-encode them as RFC 3986 says".into())
    } else {
        return Some((*path).into());
    };
    decoder.error(at, format!("{} {wrong}", quote(&path)), hint);
    None
}
