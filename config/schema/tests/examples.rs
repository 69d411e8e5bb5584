//! Every example loads.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

#[test]
fn every_example_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if let Err(errors) = schema::load(&[PathBuf::from(&path)]) {
            panic!("{errors}");
        }
        count += 1;
    }
    assert!(count >= 3, "{count} examples in {}", directory.display());
}
