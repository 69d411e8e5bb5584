//! `millrace validate`: what is wrong with a configuration, or how it would be attached.

use std::sync::Arc;

use control::Compiler;
use control::status::{Condition, GatewayStatus, RouteStatus};
use serde::Serialize;

use crate::cli::{Files, Output};
use crate::failure::Failure;

/// Loads and compiles, and touches nothing else.
pub(crate) fn validate(files: &Files, output: Output) -> Result<(), Failure> {
    match (schema::load(&files.files), output) {
        (Ok(configuration), _) => {
            let compiled = Compiler::new(1).compile(&Arc::new(configuration));
            match output {
                Output::Json => {
                    print_json(&Valid { valid: true, gateways: &compiled.gateways, routes: &compiled.routes });
                }
                Output::Table => {
                    let tables = tables(&compiled.gateways, &compiled.routes);
                    crate::say(&format!("{tables}\nvalid\n"));
                }
            }
            Ok(())
        }
        (Err(errors), Output::Json) => {
            print_json(&Invalid { valid: false, errors: &errors });
            Err(Failure::Reported(2))
        }
        (Err(errors), Output::Table) => Err(errors.into()),
    }
}

#[derive(Serialize)]
struct Valid<'a> {
    valid: bool,
    gateways: &'a [GatewayStatus],
    routes: &'a [RouteStatus],
}

#[derive(Serialize)]
struct Invalid<'a> {
    valid: bool,
    errors: &'a schema::Errors,
}

/// Gateways and routes as two tables, and below them what does not hold.
pub(crate) fn tables(gateways: &[GatewayStatus], routes: &[RouteStatus]) -> String {
    let mut listeners = Table::new(&["LISTENER", "ADDRESSES", "PORT", "HOSTNAME", "ROUTES", "STATE"]);
    let mut problems = Vec::new();
    for gateway in gateways {
        for listener in &gateway.listeners {
            let name = format!("{}/{}", gateway.name, listener.name);
            listeners.row([
                name.clone(),
                gateway.addresses.join(","),
                listener.port.to_string(),
                listener.hostname.clone(),
                listener.attached_routes.to_string(),
                state(&listener.conditions),
            ]);
            problems.extend(unfulfilled(&format!("listener {name}"), &listener.conditions));
        }
    }
    let mut attached = Table::new(&["ROUTE", "HOSTNAMES", "PARENT", "STATE"]);
    for route in routes {
        for parent in &route.parents {
            let hostnames = if route.hostnames.is_empty() { "*".to_owned() } else { route.hostnames.join(",") };
            attached.row([route.name.clone(), hostnames, parent.parent.clone(), state(&parent.conditions)]);
            problems.extend(unfulfilled(&format!("route {}", route.name), &parent.conditions));
        }
    }
    let mut text = format!("{}\n{}", listeners.render(), attached.render());
    for problem in problems {
        text += &format!("warning: {problem}\n");
    }
    text
}

pub(crate) fn print_json(value: &impl Serialize) {
    // The values are plain: strings, numbers, lists.
    crate::say(&(serde_json::to_string_pretty(value).unwrap_or_default() + "\n"));
}

pub(crate) fn state(conditions: &[Condition]) -> String {
    match conditions.iter().find(|c| c.is_bad()) {
        None => "ok".to_owned(),
        Some(bad) => bad.reason.clone(),
    }
}

fn unfulfilled(whose: &str, conditions: &[Condition]) -> Vec<String> {
    let bad = conditions.iter().filter(|c| c.is_bad());
    bad.map(|c| format!("{whose}: {:?} is {:?}: {} ({})", c.kind, c.status, c.reason, c.message)).collect()
}

/// Rows in columns that are as wide as they need to be.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(heads: &[&str; N]) -> Self {
        Self { rows: vec![heads.map(str::to_owned)] }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let widths: [usize; N] = core::array::from_fn(|column| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        });
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
            text += cells.join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}
