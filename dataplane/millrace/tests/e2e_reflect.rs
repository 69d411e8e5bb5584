//! `millrace reflect`: what comes goes back, and is counted.

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use support::gateway::{MILLRACE, polling_cpu};
use support::packets::ethernet;
use support::sandbox::Ns;
use support::wire::Wire;

#[test]
fn frames_come_back_until_a_signal_and_are_counted() {
    let sandbox = sandbox_or_skip!();
    let cpu = polling_cpu().to_string();
    let arguments = ["reflect", "--device", "net_af_packet0,iface=mr-north", "--hugepages", "off", "--mebibytes", "64"];
    let mut command = sandbox.command(Ns::Millrace, MILLRACE);
    command.args(arguments).args(["--cores", &cpu, "-o", "json"]);
    let mut mirror = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    sandbox.adopt(mirror.id());
    let mut said = BufReader::new(mirror.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("reflecting on CPU"), "{line}");
    let relay = std::thread::spawn(move || said.lines().map_while(Result::ok).collect::<Vec<_>>());

    let wire = Wire::listen(&sandbox);
    let own = [2, 0, 0, 0, 0, 0x66];
    let somebody = [2, 0, 0, 0, 0, 0x77];
    for number in 0..200u8 {
        wire.send_frame(&ethernet(somebody, own, 0x88b5, &[number; 60]));
        let back = wire.expect_frame_within(Duration::from_secs(5), |frame| {
            (frame.get(12..15)? == [0x88, 0xb5, number]).then(|| frame.to_vec())
        });
        let expected = ethernet(own, somebody, 0x88b5, &[number; 60]);
        assert_eq!(back.expect("it comes back"), expected);
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&mirror), rustix::process::Signal::TERM).unwrap();
    let output = mirror.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text} {:?}", relay.join());
    let sent =
        text.lines().find_map(|line| line.trim().strip_prefix("\"sent\": ")?.trim_end_matches(',').parse::<u64>().ok());
    assert!(sent.is_some_and(|sent| sent >= 200), "{text}");
    assert!(text.contains("\"ringFull\": 0") && text.contains("\"driver\": \"net_af_packet\""), "{text}");
}
