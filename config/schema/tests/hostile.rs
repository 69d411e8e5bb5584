//! Input that nobody means well with: it is refused, in bounded time, without a panic.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use schema::{load_sources, load_str};

const HELLO: &str = include_str!("../../examples/hello.yaml");
const HOSTNAMES: &str = include_str!("../../examples/hostnames.yaml");

fn refused(bytes: &[u8]) -> String {
    load_sources(&[("x.yaml", bytes)]).expect_err("refused").to_string()
}

#[test]
fn truncated_anywhere() {
    for end in 0..HELLO.len() {
        if let Ok(loaded) = load_str("hello.yaml", &HELLO[..end]) {
            // Only where what is left is whole.
            assert_eq!(loaded.appliance.metadata.name().as_str(), "edge", "at byte {end}");
        }
    }
    for end in (0..HOSTNAMES.len()).step_by(7) {
        let _ = load_str("hostnames.yaml", &HOSTNAMES[..end]);
    }
}

#[test]
fn each_byte_replaced() {
    for at in 0..HELLO.len() {
        for byte in [0, b'\n', b'\t', b'{', b']', b'"', b'&', b'*', b'!', b'-', 0xff] {
            let mut bytes = HELLO.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = load_sources(&[("hello.yaml", &bytes)]);
        }
    }
}

#[test]
fn an_alias_bomb() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for level in b'b'..=b'z' {
        let (name, before) = (level as char, (level - 1) as char);
        let aliases = vec![format!("*{before}"); 10].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    let shown = refused(bomb.as_bytes());
    assert!(shown.contains("an alias"), "{shown}");
    let cycle = refused(b"a: &a\n  b: *a\n");
    assert!(cycle.contains("x.yaml:2:6: an alias"), "{cycle}");
}

#[test]
fn deep_nesting() {
    for opening in ["[", "{a: ", "- ", "? "] {
        let shown = refused(opening.repeat(500_000).as_bytes());
        assert!(shown.contains("nested deeper than 64 levels"), "{opening}: {shown}");
    }
}

#[test]
fn no_text() {
    assert!(refused(b"a: b\0c: d\n").starts_with("x.yaml:1:5: the character \\u{0}, which YAML forbids"));
    assert!(refused(b"a: b\nc: \x1b[2J\n").starts_with("x.yaml:2:4: the character \\u{1b}"));
    assert!(refused(b"a: b\nc: \xff\n").starts_with("x.yaml:2:4: a byte that is not UTF-8"));
    let with_mark = [b"\xef\xbb\xbf".as_slice(), HELLO.as_bytes()].concat();
    assert!(load_sources(&[("x.yaml", &with_mark)]).is_ok());
    assert!(load_str("x.yaml", &HELLO.replace('\n', "\r\n")).is_ok());
}

#[test]
fn a_megabyte_of_anything() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut garbage = vec![0_u8; 1 << 20];
    for byte in &mut garbage {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
    refused(&garbage);
    for byte in &mut garbage {
        *byte = b" \n\t-:[]{},'\"#&*!|>%@`?abc0"[usize::from(*byte) % 26];
    }
    refused(&garbage);
    for text in [
        "a",
        "a: \n",
        "- \n",
        "{},",
        "1: 2\n",
        "---\n",
        "---\na: 1\n",
        "'",
        "#",
        "\n",
        "\"\\x00",
        "a: {b: [c]}\n",
        "&a ",
        "? a\n",
    ] {
        refused(text.repeat((1 << 20) / text.len()).as_bytes());
    }
}

#[test]
fn more_errors_than_anyone_reads() {
    let mut text = String::from("apiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: { name: a }\nspec:\n");
    for n in 0..50_000 {
        text.push_str(&format!("  f{n}: 1\n"));
    }
    let errors = load_str("x.yaml", &text).unwrap_err();
    assert_eq!(errors.len(), 10_001);
    let shown = errors.to_string();
    assert!(shown.contains("\n40002 more errors are not shown\n"), "{}", &shown[shown.len() - 200..]);
}

/// Pieces that are nearly a configuration, which random text never is.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-zA-Z0-9.*/:-]{0,12}",
        prop::sample::select(vec![
            "apiVersion",
            "kind",
            "metadata",
            "name",
            "spec",
            "Gateway",
            "millrace.dev/v1alpha1",
            "listeners",
            "rules",
            "matches",
            "path",
            "10.9.1.1",
            "10.9.1.1/24",
            "80",
            "-1",
            "null",
            "~",
            "true",
            "0s",
            "64KiB",
            "{",
            "}",
            "[",
            "]",
            ": ",
            ", ",
            "\n",
            "\n  ",
            "- ",
            "---\n",
            "&a ",
            "*a ",
            "!!str ",
            "\"",
            "'",
            "|\n",
            "%YAML 1.2\n",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn nothing_panics(pieces in prop::collection::vec(piece(), 0..60)) {
        if let Err(errors) = load_str("x.yaml", &pieces.concat()) {
            prop_assert!(errors.len() > 0);
            let shown = errors.to_string();
            prop_assert!(!shown.contains('\u{1b}'), "{}", shown);
        }
    }

    #[test]
    fn nothing_panics_on_a_configuration_with_something_else_in_it(
        text in prop::sample::select(vec![HELLO, HOSTNAMES]),
        at in any::<prop::sample::Index>(),
        cut in 0_usize..20,
        put in piece(),
    ) {
        let mut characters: Vec<char> = text.chars().collect();
        let start = at.index(characters.len());
        let end = (start + cut).min(characters.len());
        characters.splice(start..end, put.chars());
        let text: String = characters.into_iter().collect();
        if let Err(errors) = load_str("x.yaml", &text) {
            prop_assert!(errors.len() > 0);
            prop_assert!(errors.iter().all(|e| !e.problem.is_empty()));
        }
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = load_sources(&[("x.yaml", &bytes)]);
    }
}
