//! `millrace explain`: which rule a request would meet, why, and where it would go; asked of a running Millrace, or of files.

use core::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use control::Compiler;
use control::explain::{Chosen, Explanation, Pick, Present, Question, explain as explained};

use crate::cli::Output;
use crate::failure::Failure;
use crate::status::{ask, say, strange};
use crate::validate::print_json;

/// For an answer about ten thousand routes.
const PATIENCE: core::time::Duration = core::time::Duration::from_secs(30);

/// What `millrace explain` was given.
#[derive(Debug, clap::Args)]
pub(crate) struct Request {
    /// The method: GET, POST …
    method: String,
    /// Such as `http://shop.example/cart?page=2`
    url: String,
    /// A header field, as curl takes it.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Who sends it: for source lists, and for policies that go by the client.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// The address that it is sent to, where several listen on the port and the URL names none.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<IpAddr>,
    /// The core that it comes to; without it, whose turn it is is said of each
    #[arg(long, value_name = "INDEX", conflicts_with = "files")]
    core: Option<u16>,
    /// Ask this configuration and not a running Millrace. Once for each file or directory, so that method and URL may stand behind it.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
}

/// Explains a request.
pub(crate) fn explain(request: &Request, admin: SocketAddr, output: Output) -> Result<(), Failure> {
    let mut question = Question {
        method: request.method.clone(),
        url: request.url.clone(),
        headers: Vec::new(),
        client: request.client,
        address: request.to,
        core: request.core,
    };
    for header in &request.headers {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| Failure::new(format!("header {header:?} has no colon")).hint("-H 'x-user: 7'"))?;
        question.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if !request.files.is_empty() {
        let configuration = schema::load(&request.files)?;
        let compiled = Compiler::new(1).compile(&Arc::new(configuration));
        let explanation = explained(&compiled, &Present::default(), &question).map_err(Failure::new)?;
        match output {
            Output::Json => print_json(&explanation),
            Output::Table => crate::say(&render(&explanation)),
        }
        return Ok(());
    }
    match ask(admin, "GET", &format!("/explain?{}", question.to_query()), PATIENCE)? {
        (200, body) => say(admin, output, &body, render),
        (400, body) => Err(Failure::new(String::from_utf8_lossy(&body).trim_end().to_owned())),
        (status, _) => Err(strange(admin, &format!("status {status}"))),
    }
}

fn render(explanation: &Explanation) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "{}: {}\n", explanation.request, explanation.outcome);
    if let Some(listener) = &explanation.listener {
        let name = listener.name.as_deref().unwrap_or("none");
        let hostname = if listener.hostname.is_empty() { String::new() } else { format!(" ({})", listener.hostname) };
        let _ = writeln!(text, "listener at {}: {name}{hostname}", listener.address);
        for other in &listener.others {
            let _ = writeln!(text, "  not {other}");
        }
    }
    if !explanation.considered.is_empty() {
        let _ = writeln!(text, "rules, in the order of precedence:");
    }
    for rule in &explanation.considered {
        let mark = if rule.verdict == "chosen" { "▶" } else { " " };
        let name = rule.name.as_ref().map_or_else(|| rule.rule.to_string(), |name| format!("{} ({name})", rule.rule));
        let _ = writeln!(
            text,
            "{mark} {} rule {name}, host {}: {}\n      {}",
            rule.route, rule.hostname, rule.matching, rule.verdict
        );
    }
    if explanation.passed_over > 0 {
        let _ = writeln!(text, "  and {} more, which do not match or come later", explanation.passed_over);
    }
    if let Some(chosen) = &explanation.chosen {
        render_chosen(chosen, &mut text);
    }
    text
}

fn render_chosen(chosen: &Chosen, text: &mut String) {
    let _ = writeln!(text, "\n{} rule {}, at {}", chosen.route, chosen.rule, chosen.source);
    for filter in &chosen.filters {
        let _ = writeln!(text, "  filter   {filter}");
    }
    for limit in &chosen.limits {
        let _ = writeln!(text, "  limit    {limit}");
    }
    for (name, timeout) in [("request", &chosen.request_timeout), ("backendRequest", &chosen.backend_timeout)] {
        if let Some(timeout) = timeout {
            let _ = writeln!(text, "  timeout  {name} {timeout}");
        }
    }
    for backend in &chosen.backends {
        let _ =
            writeln!(text, "  backend  {}, weight {}: {:.1} %", backend.name, backend.weight, backend.share * 100.0);
        for name in &backend.names {
            let _ = writeln!(text, "             {name}");
        }
        for endpoint in &backend.endpoints {
            let share = endpoint.share * 100.0;
            let state = endpoint.state.as_ref().map_or_else(String::new, |state| format!(", {state}"));
            let _ =
                writeln!(text, "             {}, weight {}: {share:.1} %{state}", endpoint.address, endpoint.weight);
        }
        if backend.more_endpoints > 0 {
            let _ = writeln!(text, "             and {} more", backend.more_endpoints);
        }
        if let Some(pick) = &backend.pick {
            render_pick(pick, text);
        }
    }
    if let Some(next) = &chosen.next {
        let _ = writeln!(text, "  next     {next}");
    }
    for turn in &chosen.cores {
        let endpoint = turn.endpoint.as_deref().unwrap_or("by chance");
        let _ = writeln!(text, "  core {:<4}{}, {endpoint}", turn.core, turn.backend);
    }
}

/// Which endpoint it would be now.
fn render_pick(pick: &Pick, text: &mut String) {
    match &pick.endpoint {
        Some(endpoint) => {
            let _ = writeln!(text, "    pick     {endpoint}: {}", pick.why);
        }
        None => {
            let _ = writeln!(text, "    pick     {}", pick.why);
        }
    }
    for candidate in &pick.candidates {
        let _ = writeln!(text, "             {}: {:.1} %", candidate.address, candidate.probability * 100.0);
    }
}
