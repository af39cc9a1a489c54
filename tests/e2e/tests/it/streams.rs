//! What goes on in both directions: logs, exec, cp, port-forward, over either protocol.

use std::io::{Read as _, Write as _};

use umbra_e2e::environment;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::process::Process;
use umbra_e2e::wait;

/// What streams are carried over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    WebSocket,
    Spdy,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::WebSocket, Self::Spdy];

    /// kubectl that uses it.
    pub(crate) fn of(self, kubectl: &Kubectl) -> Kubectl {
        let websockets = match self {
            Self::WebSocket => "true",
            Self::Spdy => "false",
        };
        kubectl
            .variable("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
            .variable("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
    }
}

/// Follows the logs of a pod that counts.
#[track_caller]
pub(crate) fn logs(kubectl: &Kubectl, pod: &str) {
    let mut logs = kubectl.start(["logs", "-f", pod]);
    let seen = logs.wait_for("the third line", |text| text.contains("tick 3\n"));
    assert!(seen.starts_with("tick 1\n"), "{seen}");
    logs.stop();
}

/// Output, input, errors and exit codes.
#[track_caller]
pub(crate) fn exec(kubectl: &Kubectl, pod: &str) {
    assert_eq!(kubectl.ok(["exec", pod, "--", "echo", "hello"]), "hello\n");
    assert_eq!(kubectl.ok_with("through", ["exec", "-i", pod, "--", "cat"]), "through");
    let code = kubectl.run(["exec", pod, "--", "sh", "-c", "echo no >&2; exit 7"]);
    assert!(code.code == Some(7) && code.stderr.contains("no\n"), "{code}");
}

/// A terminal, whose size is known inside, also after it has changed.
#[track_caller]
pub(crate) fn terminal(kubectl: &Kubectl, pod: &str) {
    // The size arrives when the process runs already.
    let sizes = "while stty size; do sleep 0.1; done";
    let mut terminal = kubectl.terminal(["exec", "-it", pod, "--", "sh", "-c", sizes], (31, 117));
    terminal.wait_for("the size", |text| text.contains("31 117"));
    terminal.resize((42, 133));
    terminal.wait_for("the new size", |text| text.contains("42 133"));
}

/// There and back: the pod's processes see the files of this machine.
#[track_caller]
pub(crate) fn copy(kubectl: &Kubectl, pod: &str) {
    let folder = environment::folder("copy");
    let [from, inside, back] = ["from", "inside", "back"].map(|name| folder.join(name).to_string_lossy().into_owned());
    let content: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(&from, &content).expect("the folder is there");
    kubectl.ok(["cp", &from, &format!("{pod}:{inside}")]);
    kubectl.ok(["cp", &format!("{pod}:{inside}"), &back]);
    assert!(
        std::fs::read_to_string(&back).expect("kubectl cp has written it") == content,
        "the copy differs"
    );
}

/// A request to port 80 of what is named, through a port of this machine.
#[track_caller]
pub(crate) fn forward(kubectl: &Kubectl, to: &str) {
    let mut forward = kubectl.start(["port-forward", to, ":80"]);
    let port = forwarded_port(&mut forward);
    let answer = wait::until("an answer", wait::DEADLINE, || {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        let request = b"GET /here HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";
        socket.write_all(request).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        if answer.is_empty() {
            Err(forward.output())
        } else {
            Ok(answer)
        }
    });
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("/here"),
        "{answer}"
    );
    forward.stop();
}

/// The port of this machine that `kubectl port-forward` listens on.
#[track_caller]
pub(crate) fn forwarded_port(forward: &mut Process) -> u16 {
    let line = forward.wait_for("the port", |text| text.contains("Forwarding from 127.0.0.1:"));
    line.split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in {line}"))
}
