//! The events of one request.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;

use super::AuditLog;
use super::event::{Event, Outcome, Stage, Subject};

/// A request whose answer has not ended: dropping it writes that it has.
#[derive(Debug)]
pub(crate) struct Pending {
    log: AuditLog,
    subject: Arc<Subject>,
    outcome: Arc<Outcome>,
    last: Stage,
}

impl AuditLog {
    /// Writes down that a request has arrived.
    pub(crate) fn received(&self, subject: Subject) {
        let at = subject.received;
        self.submit(Event {
            subject: Arc::new(subject),
            stage: Stage::RequestReceived,
            at,
            outcome: None,
        });
    }

    /// What became of a request, to be written down when its answer has ended: when what is returned is dropped.
    pub(crate) fn answered(&self, subject: Subject, outcome: Outcome, long_running: bool, panicked: bool) -> Pending {
        let (subject, outcome) = (Arc::new(subject), Arc::new(outcome));
        if long_running && !panicked {
            self.submit(Event {
                subject: Arc::clone(&subject),
                stage: Stage::ResponseStarted,
                at: Timestamp::now(),
                outcome: Some(Arc::clone(&outcome)),
            });
        }
        Pending {
            log: self.clone(),
            subject,
            outcome,
            last: if panicked {
                Stage::Panic
            } else {
                Stage::ResponseComplete
            },
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.log.submit(Event {
            subject: Arc::clone(&self.subject),
            stage: self.last,
            at: Timestamp::now(),
            outcome: Some(Arc::clone(&self.outcome)),
        });
    }
}

/// Where a request comes from, as Kubernetes tells it (`k8s.io/apimachinery/pkg/util/net.SourceIPs`): what
/// `X-Forwarded-For` says, which anybody can, then the peer. The last is the only one that is certain.
pub(crate) fn source_ips(headers: &HeaderMap, peer: Option<SocketAddr>) -> Vec<String> {
    let forwarded = headers.get_all("x-forwarded-for");
    let mut addresses: Vec<String> = forwarded
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|address| address.trim().parse::<std::net::IpAddr>().ok())
        .map(|address| address.to_string())
        .collect();
    if let Some(peer) = peer {
        let peer = peer.ip().to_canonical().to_string();
        if addresses.last() != Some(&peer) {
            addresses.push(peer);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_proxies_and_the_peer() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "10.0.0.1, <script>".parse().unwrap());
        headers.append("x-forwarded-for", "::1".parse().unwrap());
        let peer = Some("[::ffff:127.0.0.1]:80".parse().unwrap());
        assert_eq!(source_ips(&headers, peer), ["10.0.0.1", "::1", "127.0.0.1"]);
        assert_eq!(source_ips(&HeaderMap::new(), None), [""; 0]);
    }
}
