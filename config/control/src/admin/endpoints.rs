//! `POST /endpoints`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};

use super::from_browser;
use crate::endpoints::{Address, Setting};
use crate::supervisor::Supervisor;

/// `POST /endpoints?backend=namespace/name&address=ADDRESS[:PORT]&` and `weight=N`, `drain`, or `ready` (`reset` is the same).
pub(super) async fn set(
    State(supervisor): State<Arc<Supervisor>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> (StatusCode, String) {
    if let Some((status, text)) = from_browser(&headers) {
        return (status, text.to_owned());
    }
    let wanted = match wanted(query.as_deref().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(problem) => return (StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let (backend, address, setting) = wanted;
    match supervisor.set_endpoint(&backend, address, setting) {
        Ok((endpoints, not_kept)) => {
            tracing::info!("{backend}: {address} is to be {setting:?}, as asked on the admin endpoint");
            let not_kept = not_kept.map(|why| format!("it cannot be kept for a restart: {why}\n")).unwrap_or_default();
            (StatusCode::OK, format!("{endpoints} endpoint(s) set\n{not_kept}"))
        }
        Err(problem) => (StatusCode::NOT_FOUND, format!("{problem}\n")),
    }
}

/// What a query asks for. Neither names nor addresses need escapes.
fn wanted(query: &str) -> Result<(String, Address, Setting), String> {
    let (mut backend, mut address, mut setting) = (None, None, None);
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let new = match key {
            "backend" if value.contains('/') => {
                backend = Some(value.to_owned());
                continue;
            }
            "backend" => {
                backend = Some(format!("default/{value}"));
                continue;
            }
            "address" => {
                let parsed = Address::parse(value);
                address = Some(parsed.ok_or(format!("{value:?} is no address, such as 10.9.2.2 or 10.9.2.2:8080"))?);
                continue;
            }
            "weight" => match value.parse() {
                Ok(weight @ 0..=1_000_000) => Setting::Weight(weight),
                _ => return Err(format!("{value:?} is no weight: 0 to 1000000")),
            },
            "drain" => Setting::Drain,
            "ready" | "reset" => Setting::Ready,
            _ => {
                return Err(format!(
                    "unknown parameter {key:?}: backend, address, and one of weight, drain, ready (or reset)"
                ));
            }
        };
        if setting.replace(new).is_some() {
            return Err("one of weight, drain, ready (or reset) at a time".to_owned());
        }
    }
    match (backend, address, setting) {
        (Some(backend), Some(address), Some(setting)) => Ok((backend, address, setting)),
        _ => Err("backend, address, and one of weight, drain, ready (or reset) are needed".to_owned()),
    }
}
