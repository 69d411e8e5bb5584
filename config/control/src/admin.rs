//! The admin endpoint: HTTP/1.1 on the kernel's network.
//!
//! One request a connection, a bounded number of connections, and a bounded time for each, so that a client that stalls
//! holds up nothing for long. Handlers only read; `POST /config`, `/reload` and `/drain` are those that change something.

mod endpoints;

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use crate::explain::{Explanation, Present, Question, explain};
use crate::reload::{Answer, Command, Outcome};
use crate::supervisor::Supervisor;
use crate::{listing, metrics};

/// Connections served at a time; others wait in the kernel's backlog.
const CONNECTIONS: usize = 64;

/// What a client has to send its request and take its answer.
const REQUEST: Duration = Duration::from_secs(5);

/// What a change of the configuration gets, once it was received: ten thousand routes are compiled in less than a second.
const CHANGE: Duration = Duration::from_secs(120);

/// Where this variable of the environment is set, `POST /panic?thread=admin` and `?thread=reload` make these threads panic. For tests.
const PANICS: &str = "MILLRACE_TEST_PANICS";

/// Bytes of a request head that are read at most. The smallest that hyper takes.
const HEAD: usize = 8 << 10;

/// Connections that are listed where nobody says how many.
const LISTED: usize = 1000;

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

/// What handlers have to do with.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) commands: Sender<Command>,
}

/// When a connection has had its time.
#[derive(Clone)]
struct Patience(Arc<Mutex<Instant>>);

impl Patience {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now() + REQUEST)))
    }

    /// What is asked takes longer.
    fn extend(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + by;
    }

    async fn over(&self) {
        loop {
            let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() >= at {
                return;
            }
            tokio::time::sleep_until(at).await;
        }
    }
}

/// Serves until `ended` resolves. Starts over if something here panics: the data plane does not notice.
pub(crate) fn run(listener: &TcpListener, access: &Access, mut ended: oneshot::Receiver<()>) {
    loop {
        let once = AssertUnwindSafe(|| serve(listener, access, &mut ended));
        match std::panic::catch_unwind(once) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(%error, "admin endpoint failed; starting over"),
            Err(_) => tracing::error!("admin endpoint panicked; starting over"),
        }
        access.supervisor.restarted("admin");
        std::thread::sleep(PAUSE);
    }
}

fn serve(listener: &TcpListener, access: &Access, ended: &mut oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let panics = Arc::new(Notify::new());
        let router = router(access, &panics);
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = &mut *ended => return Ok(()),
                _ = tick.tick() => access.supervisor.tick(),
                () = panics.notified() => panic_for_a_test(),
                () = accept(&listener, &permits, &router) => {}
            }
        }
    })
}

/// What `POST /panic` asks for.
#[expect(clippy::panic, reason = "only where the environment allows it")]
pub(crate) fn panic_for_a_test() -> ! {
    std::panic::panic_any("as a test wants it")
}

/// Takes one connection and lets a task serve it. May be cancelled at any await.
async fn accept(listener: &tokio::net::TcpListener, permits: &Arc<Semaphore>, router: &Router) {
    // The semaphore is never closed.
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
        return;
    };
    match listener.accept().await {
        Ok((stream, _)) => {
            let patience = Patience::new();
            let service = TowerToHyperService::new(router.clone().layer(Extension(patience.clone())));
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .keep_alive(false)
                    .max_buf_size(HEAD)
                    .serve_connection(TokioIo::new(stream), service);
                // A client that was too slow, or spoke no HTTP, learns it by the connection's end.
                tokio::select! {
                    _ = connection => {}
                    () = patience.over() => {}
                }
                drop(permit);
            });
        }
        Err(error) => {
            tracing::warn!(%error, "admin endpoint cannot accept");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn router(access: &Access, panics: &Arc<Notify>) -> Router {
    let mut changes = Router::new()
        .route("/config", get(configuration).post(replace))
        .route("/reload", post(reload))
        .layer(DefaultBodyLimit::max(usize::try_from(schema::MAX_FILE_BYTES).unwrap_or(usize::MAX)));
    if std::env::var_os(PANICS).is_some() {
        let panics = Arc::clone(panics);
        let handler = async move |State(access): State<Access>, RawQuery(query): RawQuery| match query.as_deref() {
            Some("thread=admin") => panics.notify_one(),
            _ => drop(access.commands.send(Command::Panic)),
        };
        changes = changes.route("/panic", post(handler));
    }
    Router::new()
        .route("/livez", get(async |State(s): State<Arc<Supervisor>>| verdict(&s.dead(), &[])))
        .route("/readyz", get(async |State(s): State<Arc<Supervisor>>| verdict(&s.unready(), &s.remarks())))
        .route("/metrics", get(prometheus))
        .route("/status", get(async |State(s): State<Arc<Supervisor>>| json(&s.status())))
        .route("/cores", get(async |State(s): State<Arc<Supervisor>>| json(&s.core_details())))
        .route("/listeners", get(async |State(s): State<Arc<Supervisor>>| json(&listing::listeners(&s.compiled()))))
        .route("/routes", get(async |State(s): State<Arc<Supervisor>>| json(&listing::routes(&s.compiled()))))
        .route("/backends", get(async |State(s): State<Arc<Supervisor>>| json(&listing::backends(&s.compiled()))))
        .route("/limits", get(async |State(s): State<Arc<Supervisor>>| json(&listing::limits(&s.compiled()))))
        .route("/connections", get(connections))
        .route("/explain", get(explained))
        .route("/epochs", get(async |State(s): State<Arc<Supervisor>>| json(&s.epochs())))
        .route("/endpoints", get(async |State(s): State<Arc<Supervisor>>| json(&s.endpoints())).post(endpoints::set))
        .route("/names", get(async |State(s): State<Arc<Supervisor>>| json(&s.names())))
        .route("/drain", post(drain))
        .with_state(Arc::clone(&access.supervisor))
        .merge(changes.with_state(access.clone()))
}

/// 200, or 503 with a line per reason; then what should be known all the same.
fn verdict(reasons: &[String], remarks: &[String]) -> (StatusCode, String) {
    let lines = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    if reasons.is_empty() {
        (StatusCode::OK, format!("ok\n{}", lines(remarks)))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, lines(reasons) + &lines(remarks))
    }
}

/// What runs, as it was given, in YAML; with `?format=json` in its parts.
async fn configuration(State(access): State<Access>, RawQuery(query): RawQuery) -> Response {
    // Telling Secrets from the rest takes as long as reading the files.
    let Ok(text) = tokio::task::spawn_blocking(move || access.supervisor.configuration_text()).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if query.as_deref().unwrap_or_default().split('&').any(|part| part == "format=json") {
        return json(&text);
    }
    ([(header::CONTENT_TYPE, "application/yaml; charset=utf-8")], text.yaml()).into_response()
}

/// Takes the body, YAML documents as in files, in the place of the whole configuration. With `?dry-run` it only says what would change.
async fn replace(
    State(access): State<Access>,
    Extension(patience): Extension<Patience>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let dry_run =
        query.as_deref().unwrap_or_default().split('&').any(|part| ["dry-run", "dry-run=true"].contains(&part));
    change(&access, &patience, &headers, |answer| Command::Apply { text: body.into(), dry_run, answer }).await
}

/// Reads the files again.
async fn reload(
    State(access): State<Access>,
    Extension(patience): Extension<Patience>,
    headers: HeaderMap,
) -> Response {
    change(&access, &patience, &headers, |answer| Command::Reload(Some(answer))).await
}

/// Hands a change to the thread that makes them, and says what came of it: 200, or 422 where it was refused.
async fn change(
    access: &Access,
    patience: &Patience,
    headers: &HeaderMap,
    command: impl FnOnce(oneshot::Sender<Answer>) -> Command,
) -> Response {
    if let Some(refusal) = from_browser(headers) {
        return refusal.into_response();
    }
    patience.extend(CHANGE);
    let (answer, answered) = oneshot::channel();
    let sent = access.commands.send(command(answer));
    match (sent, answered.await) {
        (Ok(()), Ok(answer)) if answer.outcome == Outcome::Refused => {
            (StatusCode::UNPROCESSABLE_ENTITY, json(&answer)).into_response()
        }
        (Ok(()), Ok(answer)) => json(&answer),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the thread that takes changes has ended or panicked: see the log\n")
            .into_response(),
    }
}

/// A page in an administrator's browser can post to loopback too, but not without this field.
fn from_browser(headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    headers.contains_key(header::ORIGIN).then_some((StatusCode::FORBIDDEN, "not from a browser\n"))
}

async fn prometheus(State(supervisor): State<Arc<Supervisor>>, RawQuery(query): RawQuery) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], supervisor.metrics(&names(query.as_deref())))
}

/// The cores' connections, `?limit=` of them at most. The cores are waited for on a thread of its own.
async fn connections(State(supervisor): State<Arc<Supervisor>>, RawQuery(query): RawQuery) -> Response {
    let given = query.as_deref().unwrap_or_default().split('&').find_map(|part| part.strip_prefix("limit="));
    let Some(limit) = given.map_or(Some(LISTED), |given| given.parse().ok()) else {
        return (StatusCode::BAD_REQUEST, "limit is not a number\n").into_response();
    };
    match tokio::task::spawn_blocking(move || supervisor.list_connections(limit)).await {
        Ok(listed) => json(&listed),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// What would become of a request; 400 with the reason where the question makes no sense.
async fn explained(State(supervisor): State<Arc<Supervisor>>, RawQuery(query): RawQuery) -> Response {
    // A core is asked whose turn it is, and waited for.
    let answer = tokio::task::spawn_blocking(move || explanation(&supervisor, query.as_deref().unwrap_or_default()));
    match answer.await {
        Ok(Ok(explanation)) => json(&explanation),
        Ok(Err(wrong)) => (StatusCode::BAD_REQUEST, format!("{wrong}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn explanation(supervisor: &Supervisor, query: &str) -> Result<Explanation, String> {
    let question = Question::from_query(query)?;
    let (compiled, selections) = supervisor.selections();
    let (endpoints, names) = (supervisor.endpoints().endpoints, supervisor.names().names);
    supervisor.has_core(question.core)?;
    let turns = |rule| supervisor.turns(rule, question.core);
    let present = Present { endpoints: &endpoints, names: &names, selections: &selections, turns: Some(&turns) };
    explain(&compiled, &present, &question)
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
    if let Some(refusal) = from_browser(&headers) {
        return refusal;
    }
    tracing::info!("draining, as asked on the admin endpoint");
    supervisor.drain();
    (StatusCode::OK, "draining\n")
}
