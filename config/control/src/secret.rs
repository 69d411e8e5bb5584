//! The secret by which session cookies name endpoints, kept where the last good configuration is: a cookie that a client has is still good after a
//! restart, and on every appliance that was given the same file.

use std::path::Path;
use std::{fs, io};

use crate::reload::replace;

/// Its file in the state directory.
const FILE: &str = "session-key";

/// The secret of `directory`; `fresh`, which is kept there for the next time, where there is none. With it comes why it could not be read or
/// kept: then it is `fresh`, and cookies are good until the process ends.
#[must_use]
pub fn session_key(directory: &Path, fresh: [u64; 2]) -> ([u64; 2], Option<String>) {
    let path = directory.join(FILE);
    let complain = |what: &str, error: &dyn core::fmt::Display| {
        Some(format!("{what} {}: {error}: sessions by cookie do not outlive this process", path.display()))
    };
    match fs::read_to_string(&path) {
        Ok(text) => match parse(&text) {
            Some(key) => (key, None),
            None => (fresh, complain("the session key cannot be read from", &"it is not 32 hexadecimal digits")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let [high, low] = fresh;
            match replace(&path, format!("{high:016x}{low:016x}\n").as_bytes()) {
                Ok(()) => (fresh, None),
                Err(error) => (fresh, complain("the session key cannot be kept at", &error)),
            }
        }
        Err(error) => (fresh, complain("the session key cannot be read from", &error)),
    }
}

fn parse(text: &str) -> Option<[u64; 2]> {
    let digits = text.trim_end();
    let is_hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let half = |range| u64::from_str_radix(digits.get(range)?, 16).ok();
    if is_hex { Some([half(0..16)?, half(16..32)?]) } else { None }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_for_nobody_else() {
        let directory = std::env::temp_dir().join(format!("millrace-secret-{}", std::process::id()));
        let inner = directory.join("state");
        assert_eq!(session_key(&inner, [7, u64::MAX]), ([7, u64::MAX], None));
        assert_eq!(session_key(&inner, [1, 2]), ([7, u64::MAX], None), "the one that is kept");
        let path = inner.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for bad in ["", "xyz", "0123456789abcdef", "+123456789abcdef0123456789abcdef"] {
            fs::write(&path, bad).unwrap();
            let (key, problem) = session_key(&inner, [3, 4]);
            assert_eq!(key, [3, 4]);
            assert!(problem.is_some_and(|p| p.contains("session-key") && p.contains("32 hexadecimal")), "{bad}");
        }
        fs::remove_dir_all(&directory).unwrap();
        // Nobody can make a directory below a file.
        let (key, problem) = session_key(Path::new("/dev/null/state"), [5, 6]);
        assert_eq!(key, [5, 6]);
        assert!(problem.is_some_and(|p| p.contains("/dev/null/state/session-key")));
    }
}
