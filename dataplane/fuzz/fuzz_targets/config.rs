//! Configuration: whatever the bytes, they are taken whole or refused, and every error has a place in its file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::{ConfigError, Configuration, load_sources};

const NAMES: [&str; 4] = ["a.yaml", "b.yaml", "c.yaml", "d.yaml"];

/// Divides an input into files: a form feed, which YAML forbids.
const NEXT_FILE: u8 = 0x0c;

/// Lines as YAML ends them: with LF, CR LF or CR.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace('\r', "\n");
    text.trim_start_matches('\u{feff}').split('\n').map(str::to_owned).collect()
}

fn has_its_place(error: &ConfigError, sources: &[(&str, &[u8])]) {
    assert!(!error.problem.is_empty());
    let Some((_, bytes)) = sources.iter().find(|(name, _)| **name == *error.file) else {
        assert!(error.file.is_empty() && error.line == 0, "of no file: {error:?}");
        return;
    };
    assert_eq!(error.line == 0, error.column == 0, "{error:?}");
    if error.line > 0 {
        let lines = lines(bytes);
        let line = lines.get(error.line as usize - 1);
        // One beyond the last character, where something is missing.
        assert!(line.is_some_and(|line| error.column as usize <= line.chars().count() + 1), "{error:?}");
    }
}

/// What was promised of a configuration that loads.
fn holds_together(configuration: &Configuration) {
    assert!(!configuration.appliance.spec.ports.is_empty());
    for gateway in &configuration.gateways {
        assert!(!configuration.gateway_addresses(gateway).is_empty());
    }
    for route in &configuration.routes {
        for parent in &route.spec.parent_refs {
            assert!(configuration.gateway(&parent.gateway).is_some());
        }
        for backend in route.spec.rules.iter().flat_map(|rule| &rule.backend_refs) {
            assert!(configuration.backend(&backend.backend).is_some());
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let sources: Vec<(&str, &[u8])> = NAMES.into_iter().zip(input.split(|&byte| byte == NEXT_FILE)).collect();
    match load_sources(&sources) {
        Ok(configuration) => {
            holds_together(&configuration);
            // The same again, in particular the same order.
            assert_eq!(load_sources(&sources).as_ref(), Ok(&configuration));
        }
        Err(errors) => {
            assert!(errors.len() > 0);
            for error in &errors {
                has_its_place(error, &sources);
            }
            // Nothing of the input reaches a terminal raw.
            let shown = errors.to_string();
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        }
    }
});
