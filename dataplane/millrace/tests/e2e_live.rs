//! Changes while Millrace serves: of its files, by its admin address, good and bad ones.

mod support;

use std::process::Stdio;
use std::time::Duration;

use support::gateway::{Config, Gateway, MILLRACE};
use support::sandbox::{Ns, Sandbox, VIP};
use support::wait_for;

/// Everything to one of the two nginx.
fn to(backend: &str) -> Config {
    let address = if backend == "b1" { "10.9.2.2:8080" } else { "10.9.2.3:8080" };
    Config::everything_to(&[address])
}

/// What `work` does while wrk runs, and what wrk says then; it has to have seen no failure.
fn under_wrk(sandbox: &Sandbox, seconds: u32, work: impl FnOnce()) -> String {
    let mut command = sandbox.command(Ns::Client, "wrk");
    let url = format!("http://{VIP}/1k");
    command.args(["-t1", "-c32", &format!("-d{seconds}s"), "--timeout", "5s", &url]);
    let wrk = command.stdout(Stdio::piped()).spawn().expect("wrk runs");
    work();
    let output = wrk.wait_with_output().expect("wrk can be waited for");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    text
}

fn millrace(gateway: &Gateway<'_>, arguments: &[&str]) -> (i32, String) {
    let output = gateway.sandbox.command(Ns::Millrace, MILLRACE).args(arguments).output().expect("millrace runs");
    (output.status.code().expect("a code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_file_that_changes_is_taken_and_no_request_fails() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let mut gateway = Gateway::start(&sandbox, &to("b1"));
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b1"));
    let text = under_wrk(&sandbox, 4, || {
        for backend in ["b2", "b1", "b2"] {
            let epoch = gateway.epoch();
            gateway.rewrite(&to(backend).text());
            gateway.await_epoch_after(epoch);
            assert_eq!(gateway.get("/").field("X-Backend"), Some(backend));
        }
    });
    eprintln!("{text}");
    assert_eq!(gateway.epoch(), 4);
    let (code, text) = millrace(&gateway, &["get", "epochs"]);
    assert!(code == 0 && text.starts_with("epoch 4\n"), "{text}");
    eprintln!("{text}");
    let (code, text) = millrace(&gateway, &["reload"]);
    assert_eq!((code, text.as_str()), (0, "unchanged: epoch 4 runs on\n"));
    gateway.assert_alive();
}

#[test]
fn a_mistake_is_refused_shown_and_mended() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let gateway = Gateway::start(&sandbox, &to("b1"));
    let bad = to("b2").text().replace("PathPrefix", "Prefx");
    gateway.rewrite(&bad);
    wait_for("the refusal", Duration::from_secs(5), || {
        gateway.metric("millrace_config_last_reload_successful", &[]) == 0
    });
    let ready = gateway.admin("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("spec.rules[0].matches[0].path.type: unknown value \"Prefx\""), "{}", ready.text());
    assert_eq!((gateway.get("/").field("X-Backend"), gateway.epoch()), (Some("b1"), 1));
    let (code, text) = millrace(&gateway, &["status"]);
    assert!(
        code == 0 && text.contains("configuration refused, 1 error; the one before it runs on as epoch 1"),
        "{text}"
    );
    let (code, text) = millrace(&gateway, &["reload"]);
    assert!(code == 2 && text.ends_with("1 error: refused, epoch 1 runs on\n"), "{text}");
    gateway.rewrite(&to("b2").text());
    gateway.await_epoch_after(1);
    assert_eq!(gateway.admin("/readyz").text(), "ok\n");
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b2"));
}

#[test]
fn a_restart_with_bad_files_runs_the_last_good_configuration() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let mut gateway = Gateway::start(&sandbox, &to("b1"));
    gateway.rewrite(&to("b2").text());
    gateway.await_epoch_after(1);
    gateway.rewrite("kind: [");
    gateway.terminate();
    assert!(gateway.ended(Duration::from_secs(20)).success());
    drop(gateway);
    let gateway = Gateway::start_as_is(&sandbox, &[]);
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b2"));
    assert!(gateway.log().contains("THE LAST GOOD ONE RUNS"), "{}", gateway.log());
    assert_eq!(gateway.metric("millrace_config_last_good", &[]), 1);
    let (_, text) = millrace(&gateway, &["status"]);
    assert!(text.contains("configuration: THE LAST GOOD ONE, because the files are bad"), "{text}");
    gateway.rewrite(&to("b1").text());
    gateway.await_epoch_after(1);
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b1"));
    assert_eq!(gateway.metric("millrace_config_last_good", &[]), 0);
}
