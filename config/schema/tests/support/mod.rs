//! `hello.yaml`, broken on purpose.
#![allow(dead_code, unreachable_pub)]

use std::fmt::Write;

use schema::{Errors, load_str};

pub const HELLO: &str = include_str!("../../../examples/hello.yaml");

/// Line by line, `line:column field: problem (hint)`.
pub fn brief(errors: &Errors) -> String {
    let mut out = String::new();
    for e in errors {
        let _ = write!(out, "{}:{} {}: {}", e.line, e.column, e.field, e.problem);
        if let Some(hint) = &e.hint {
            let _ = write!(out, " ({hint})");
        }
        out.push('\n');
    }
    out
}

/// For each (from, to, expected): `hello.yaml` with `from` replaced by `to` fails with `expected`.
pub fn cases(table: &[(&str, &str, &str)]) {
    let mut wrong = String::new();
    for (from, to, expected) in table {
        assert_eq!(HELLO.matches(from).count(), 1, "{from:?} is in hello.yaml once");
        let found = match load_str("hello.yaml", &HELLO.replace(from, to)) {
            Ok(_) => "it loads".to_owned(),
            Err(errors) => brief(&errors),
        };
        if found.trim_end() != *expected {
            let _ = writeln!(wrong, "(r#\"{from}\"#, r#\"{to}\"#,\n r#\"{}\"#),", found.trim_end());
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{wrong}");
}
