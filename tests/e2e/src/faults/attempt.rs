//! Requests that may get no answer, or only a part of one, and what there was when they ended.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use umbra_auth::certificates::IssuedCertificate;

use crate::any_hub::AnyHub as _;
use crate::http;
use crate::hub::Hub;
use crate::identity;

/// Somebody who sends requests to a hub, each on a connection of its own.
#[derive(Debug)]
pub struct Client {
    port: u16,
    authority_pem: String,
    certificate: IssuedCertificate,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// What was asked.
    pub path: String,
    /// The status, where the answer began.
    pub status: Option<u16>,
    /// What came, headers included.
    pub text: String,
    /// Whether the answer is whole: as long as it says, or with its last chunk.
    pub whole: bool,
    /// How long it took until the end, or until the client lost its patience.
    pub took: Duration,
    /// Whether the client lost its patience.
    pub given_up: bool,
}

impl Client {
    /// The administrator of a hub.
    #[must_use]
    pub fn administrator(hub: &Hub) -> Self {
        let authority = identity::authority(hub.folder());
        let certificate = identity::certificate(&authority, hub.administrator(), &["system:masters", "umbra:admins"]);
        Self {
            port: hub.port(),
            authority_pem: authority.certificate_pem().to_owned(),
            certificate,
        }
    }

    /// `GET` of a path.
    ///
    /// # Panics
    /// Where the hub does not listen.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str, patience: Duration) -> Attempt {
        self.send(path, "", patience)
    }

    /// A request for a WebSocket, as for `exec`. Where there is one, it is closed at once.
    ///
    /// # Panics
    /// Where the hub does not listen.
    #[must_use]
    #[track_caller]
    pub fn upgrade(&self, path: &str, patience: Duration) -> Attempt {
        let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
        self.send(path, headers, patience)
    }

    #[track_caller]
    fn send(&self, path: &str, headers: &str, patience: Duration) -> Attempt {
        let began = Instant::now();
        let mut stream = http::connect(self.port, &self.authority_pem, Some(&self.certificate));
        let connection = if headers.is_empty() {
            "Connection: close\r\n"
        } else {
            headers
        };
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{connection}\r\n",
            self.port
        );
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let mut given_up = false;
        let mut sent = stream.write_all(head.as_bytes()).is_ok();
        while sent {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                given_up = true;
                break;
            }
            stream.sock.set_read_timeout(Some(left)).expect("a timeout above zero");
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    bytes.extend_from_slice(&buffer[..read]);
                    // What is said in another protocol is of no interest.
                    sent = !bytes.starts_with(b"HTTP/1.1 101") && !whole(&bytes);
                }
                Err(error) => {
                    given_up = matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    );
                    break;
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Attempt {
            path: path.to_owned(),
            status: text.split(' ').nth(1).and_then(|status| status.parse().ok()),
            whole: whole(&bytes),
            text,
            took: began.elapsed(),
            given_up,
        }
    }
}

/// Whether an answer of HTTP/1.1 ends as it says (RFC 9112 §8).
fn whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let body = &answer[end + 4..];
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with(b"0\r\n\r\n");
    }
    head.lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse().ok())
        .is_some_and(|length: usize| length == body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_end_has_come() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", false),
            ("HTTP/1.1 200 OK\r\n", false),
        ] {
            assert_eq!(whole(answer.as_bytes()), expected, "{answer}");
        }
    }
}
