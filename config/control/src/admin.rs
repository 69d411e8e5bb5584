//! The admin endpoint: HTTP/1.1 on the kernel's network.
//!
//! One request a connection, a bounded number of connections, and a bounded time for each, so that a client that stalls
//! holds up nothing for long. Handlers only read; `POST /drain` is the one that changes something.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};

use crate::metrics;
use crate::supervisor::Supervisor;

/// Connections served at a time; others wait in the kernel's backlog.
const CONNECTIONS: usize = 64;

/// What a client has to send its request and take its answer.
const REQUEST: Duration = Duration::from_secs(5);

/// Bytes of a request head that are read at most. The smallest that hyper takes.
const HEAD: usize = 8 << 10;

/// How often cores are looked at and old tables freed.
const TICK: Duration = Duration::from_millis(200);

/// After a failure to accept (out of file descriptors), before the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the admin address. To be done before anything else is started, because it is what fails when Millrace runs already.
///
/// # Errors
/// The address is taken, not on this host, or not ours to take.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `ended` resolves. Starts over if something here panics: the data plane does not notice.
pub(crate) fn run(listener: &TcpListener, supervisor: &Arc<Supervisor>, mut ended: oneshot::Receiver<()>) {
    loop {
        let once = AssertUnwindSafe(|| serve(listener, supervisor, &mut ended));
        match std::panic::catch_unwind(once) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(%error, "admin endpoint failed; starting over"),
            Err(_) => tracing::error!("admin endpoint panicked; starting over"),
        }
        std::thread::sleep(PAUSE);
    }
}

fn serve(listener: &TcpListener, supervisor: &Arc<Supervisor>, ended: &mut oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let router = router(Arc::clone(supervisor));
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = &mut *ended => return Ok(()),
                _ = tick.tick() => supervisor.tick(),
                () = accept(&listener, &permits, &router) => {}
            }
        }
    })
}

/// Takes one connection and lets a task serve it. May be cancelled at any await.
async fn accept(listener: &tokio::net::TcpListener, permits: &Arc<Semaphore>, router: &Router) {
    // The semaphore is never closed.
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
        return;
    };
    match listener.accept().await {
        Ok((stream, _)) => {
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .keep_alive(false)
                    .max_buf_size(HEAD)
                    .serve_connection(TokioIo::new(stream), service);
                // A client that was too slow, or spoke no HTTP, learns it by the connection's end.
                let _ = tokio::time::timeout(REQUEST, connection).await;
                drop(permit);
            });
        }
        Err(error) => {
            tracing::warn!(%error, "admin endpoint cannot accept");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn router(supervisor: Arc<Supervisor>) -> Router {
    Router::new()
        .route("/livez", get(async |State(s): State<Arc<Supervisor>>| verdict(&s.dead())))
        .route("/readyz", get(async |State(s): State<Arc<Supervisor>>| verdict(&s.unready())))
        .route("/metrics", get(prometheus))
        .route("/status", get(async |State(s): State<Arc<Supervisor>>| json(&s.status())))
        .route("/cores", get(async |State(s): State<Arc<Supervisor>>| json(&s.core_details())))
        .route("/drain", post(drain))
        .with_state(supervisor)
}

/// 200, or 503 with a line per reason.
fn verdict(reasons: &[String]) -> (StatusCode, String) {
    if reasons.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|reason| format!("{reason}\n")).collect())
    }
}

async fn prometheus(State(supervisor): State<Arc<Supervisor>>, RawQuery(query): RawQuery) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], supervisor.metrics(&names(query.as_deref())))
}

/// The values of `name[]` in a query, as Prometheus' client libraries have it: the only metrics that are wanted. Their names need no escapes.
fn names(query: Option<&str>) -> Vec<String> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let named = pairs.filter(|(key, _)| ["name[]", "name%5B%5D", "name%5b%5d"].contains(key));
    named.map(|(_, name)| name.to_owned()).collect()
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Makes readiness fail and stops accepting. The process ends when the last connection has, however long that takes.
async fn drain(State(supervisor): State<Arc<Supervisor>>, headers: HeaderMap) -> (StatusCode, &'static str) {
    // A page in an administrator's browser can post to loopback too, but not without this field.
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not from a browser\n");
    }
    tracing::info!("draining, as asked on the admin endpoint");
    supervisor.drain();
    (StatusCode::OK, "draining\n")
}
