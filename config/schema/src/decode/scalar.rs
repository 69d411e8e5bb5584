//! Values without fields: text, numbers, and what is written as text.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::object::{closest, wrong_type};
use super::{At, Decoder, quote, short};
use crate::hostname::Hostname;
use crate::name::Name;
use crate::quantity::{ByteSize, DurationText, Timeout, parse_duration};
use crate::yaml::Value;

/// A string.
pub(crate) fn text(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Arc<str>> {
    match &at.node.value {
        Value::String(text) => Some((**text).into()),
        other => {
            wrong_type(decoder, at, other, "a string");
            None
        }
    }
}

/// A string out of a few.
pub(crate) fn choice<T: Copy>(decoder: &mut Decoder<'_>, at: At<'_>, choices: &[(&str, T)]) -> Option<T> {
    let given = text(decoder, at)?;
    if let Some((_, value)) = choices.iter().find(|(name, _)| **name == *given) {
        return Some(*value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let problem = match names.as_slice() {
        [only] => format!("unknown value {}; it must be {only}", quote(&given)),
        _ => format!("unknown value {}; one of {}", quote(&given), names.join(", ")),
    };
    match closest(&given, names.iter().copied()) {
        Some(name) => decoder.error(at, problem, format!("did you mean {name}?")),
        None => {
            let place = decoder.location(at);
            decoder.found.error(&place, problem);
        }
    }
    None
}

/// An integer in `range`.
pub(crate) fn integer<T>(range: RangeInclusive<T>) -> impl FnOnce(&mut Decoder<'_>, At<'_>) -> Option<T>
where
    T: Copy + TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |decoder, at| {
        let Value::Integer(written, number) = &at.node.value else {
            wrong_type(decoder, at, &at.node.value, "an integer");
            return None;
        };
        let number = number.and_then(|n| T::try_from(n).ok());
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            let problem = format!("{} is out of range", short(written));
            let hint = format!("it can be {} to {}", range.start(), range.end());
            decoder.error(at, problem, hint);
        }
        number
    }
}

/// A TCP port.
pub(crate) fn port(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<NonZeroU16> {
    integer(1..=u16::MAX)(decoder, at).and_then(NonZeroU16::new)
}

/// The weight of a backend or an endpoint.
pub(crate) fn weight(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<u32> {
    integer(0..=1_000_000)(decoder, at)
}

/// A name of an object or section.
pub(crate) fn name(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Name> {
    let given = text(decoder, at)?;
    match Name::parse(&given) {
        Ok(name) => Some(name),
        Err(wrong) => {
            let hint = "lower-case letters, digits, - and ., starting and ending with a letter or digit";
            decoder.error(at, format!("{} {wrong}", quote(&given)), hint);
            None
        }
    }
}

/// A namespace.
pub(crate) fn namespace(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Name> {
    let given = text(decoder, at)?;
    match Name::parse_label(&given) {
        Ok(name) => Some(name),
        Err(wrong) => {
            let hint = "at most 63 lower-case letters, digits and -, starting and ending with a letter or digit";
            decoder.error(at, format!("{} {wrong}", quote(&given)), hint);
            None
        }
    }
}

/// A hostname.
pub(crate) fn hostname(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Hostname> {
    let given = text(decoder, at)?;
    match Hostname::parse(&given) {
        Ok(hostname) => Some(hostname),
        Err(wrong) => {
            let lower = given.to_ascii_lowercase();
            let hint = match Hostname::parse(&lower) {
                Ok(_) => format!("did you mean {lower}?"),
                Err(_) => "a DNS name in lower case without port, such as shop.example.com or *.example.com".into(),
            };
            decoder.error(at, format!("{} {wrong}", quote(&given)), hint);
            None
        }
    }
}

/// An IPv4 address of one host.
pub(crate) fn address(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<IpAddr> {
    let given = text(decoder, at)?;
    let Ok(address) = given.parse::<IpAddr>() else {
        let problem = format!("{} is not an IP address", quote(&given));
        let hint = if given.contains('/') {
            "without a prefix length"
        } else if given.parse::<SocketAddr>().is_ok() {
            "without a port"
        } else {
            "such as 10.9.1.1; names are not resolved here"
        };
        decoder.error(at, problem, hint);
        return None;
    };
    unicast(decoder, at, address)
}

/// Yes or no.
pub(crate) fn boolean(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<bool> {
    match &at.node.value {
        Value::Bool(value) => Some(*value),
        other => {
            wrong_type(decoder, at, other, "a boolean");
            None
        }
    }
}

/// The address of a port with its subnet.
pub(crate) fn network(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<IpNet> {
    let given = text(decoder, at)?;
    let Ok(network) = given.parse::<IpNet>() else {
        let (problem, hint) = if given.parse::<IpAddr>().is_ok() {
            (format!("{} has no prefix length", quote(&given)), format!("such as {given}/24"))
        } else {
            let problem = format!("{} is not an IP address with a prefix length", quote(&given));
            (problem, "such as 10.9.1.1/24".to_owned())
        };
        decoder.error(at, problem, hint);
        return None;
    };
    unicast(decoder, at, network.addr())?;
    let edge = if network.max_prefix_len() - network.prefix_len() <= 1 {
        None
    } else if network.addr() == network.network() {
        Some("the address of the network itself")
    } else if network.addr().is_ipv4() && network.addr() == network.broadcast() {
        Some("the broadcast address of its network")
    } else {
        None
    };
    if let Some(edge) = edge {
        let problem = format!("{given} is {edge}");
        decoder.error(at, problem, "give the port's own address with the length of its subnet");
        return None;
    }
    Some(network)
}

fn unicast(decoder: &mut Decoder<'_>, at: At<'_>, address: IpAddr) -> Option<IpAddr> {
    let Some(wrong) = not_of_a_host(address) else { return Some(address) };
    decoder.error(at, format!("{address} is {wrong}"), "give the address of one host");
    None
}

/// Why an address is not that of one host which a wire leads to; `None` where it may be.
pub(crate) fn not_of_a_host(address: IpAddr) -> Option<&'static str> {
    Some(match address {
        IpAddr::V6(v6) if v6.is_loopback() => "a loopback address",
        IpAddr::V6(v6) if v6.is_multicast() => "a multicast address",
        IpAddr::V6(v6) if v6.is_unspecified() => "an address of no host",
        // RFC 4291 §2.5.5: no wire carries those.
        IpAddr::V6(v6) if v6.to_ipv4().is_some() => "an IPv4 address in disguise",
        IpAddr::V6(_) => return None,
        IpAddr::V4(v4) if v4.octets().first() == Some(&0) => "an address of no host",
        IpAddr::V4(v4) if v4.is_loopback() => "a loopback address",
        IpAddr::V4(v4) if v4.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V4(v4) if v4.octets().first() >= Some(&240) => "a reserved address",
        IpAddr::V4(_) => return None,
    })
}

/// An address with a port, of the kernel's network.
pub(crate) fn socket_address(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<SocketAddr> {
    let given = text(decoder, at)?;
    let parsed = given.parse().ok();
    if parsed.is_none() {
        let problem = format!("{} is not an IP address with a port", quote(&given));
        decoder.error(at, problem, "such as \"127.0.0.1:9901\"");
    }
    parsed
}

/// A duration, which may be zero.
fn any_duration(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Duration> {
    const HINT: &str = "numbers with the units h, m, s, ms, such as 10s, 500ms or 1m30s";
    if let Value::Integer(written, _) = &at.node.value {
        let written = short(written);
        let problem = format!("{written} has no unit");
        decoder.error(at, problem, format!("{written}s, or {written}ms"));
        return None;
    }
    let given = text(decoder, at)?;
    let parsed = parse_duration(&given);
    if parsed.is_none() {
        decoder.error(at, format!("{} is not a duration", quote(&given)), HINT);
    }
    parsed
}

/// A duration above zero.
pub(crate) fn duration(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Duration> {
    let parsed = any_duration(decoder, at)?;
    if parsed.is_zero() {
        decoder.error(at, "must be longer than 0s", "this one cannot be switched off");
        return None;
    }
    Some(parsed)
}

/// A duration in `range`.
pub(crate) fn duration_within(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&mut Decoder<'_>, At<'_>) -> Option<Duration> {
    move |decoder, at| {
        let parsed = any_duration(decoder, at)?;
        if !range.contains(&parsed) {
            let (least, most) = (DurationText(*range.start()), DurationText(*range.end()));
            let problem = format!("{} is out of range", DurationText(parsed));
            decoder.error(at, problem, format!("it can be {least} to {most}"));
            return None;
        }
        Some(parsed)
    }
}

/// A duration that `0s` switches off.
pub(crate) fn timeout(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Timeout> {
    any_duration(decoder, at).map(Timeout::from)
}

/// A number of bytes in `range`.
pub(crate) fn size(range: RangeInclusive<ByteSize>) -> impl FnOnce(&mut Decoder<'_>, At<'_>) -> Option<ByteSize> {
    move |decoder, at| {
        let parsed = match &at.node.value {
            Value::Integer(_, Some(number)) => u64::try_from(*number).ok().map(ByteSize::new),
            Value::String(text) => ByteSize::parse(text),
            Value::Integer(_, None) | Value::Float(_) => None,
            other => {
                wrong_type(decoder, at, other, "a size");
                return None;
            }
        };
        let Some(parsed) = parsed else {
            decoder.error(at, "is not a size", "a number of bytes, or such as 64KiB, 1MiB, 4GiB");
            return None;
        };
        if !range.contains(&parsed) {
            let hint = format!("it can be {} to {}", range.start(), range.end());
            decoder.error(at, format!("{parsed} is out of range"), hint);
            return None;
        }
        Some(parsed)
    }
}
