//! A server with something about it that is not so: a proxy in front of a real one that answers for it where a test wants it to,
//! and passes everything else on, over HTTP/1.1; upgrades are not passed on.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use umbra_auth::certificates::CertificateAuthority;

use crate::http;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// The longest head of a request or an answer.
const HEAD: usize = 64 << 10;

/// What is not so.
#[derive(Debug, Clone, Default)]
pub struct Alteration {
    /// After so many requests for it, `/version` says this; nothing but 503 where it is empty.
    pub version: Option<(usize, String)>,
    /// What `Date` says in answers.
    pub date: Option<&'static str>,
    /// Writes are refused with 403, but for dry runs and reviews.
    pub refuses_writes: bool,
}

#[derive(Debug, Default)]
struct State {
    alteration: Alteration,
    versions: usize,
}

/// The proxy; it lives as long as the tests.
#[derive(Debug)]
pub struct Altered {
    port: u16,
    state: Arc<Mutex<State>>,
}

/// The real server.
struct Target {
    port: u16,
    authority_pem: String,
    state: Arc<Mutex<State>>,
}

impl Altered {
    /// Stands in front of the server at a port of 127.0.0.1, with a certificate of its `authority`.
    ///
    /// # Panics
    /// Where there is no port.
    #[must_use]
    pub fn start(port: u16, authority: &CertificateAuthority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let own = listener.local_addr().expect("a listener has an address").port();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let issued = authority.issue_serving(&names, HOUR).expect("a certificate");
        let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key of the certificate");
        let (config, state) = (Arc::new(config), Arc::new(Mutex::new(State::default())));
        let target = Arc::new(Target {
            port,
            authority_pem: authority.certificate_pem().to_owned(),
            state: Arc::clone(&state),
        });
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (target, config) = (Arc::clone(&target), Arc::clone(&config));
                std::thread::spawn(move || {
                    let Ok(connection) = ServerConnection::new(config) else {
                        return;
                    };
                    // Either end may break off; nobody is told.
                    let _ = target.serve(StreamOwned::new(connection, client));
                });
            }
        });
        Self { port: own, state }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// From now on this is not so, and nothing else.
    pub fn alter(&self, alteration: Alteration) {
        *locked(&self.state) = State {
            alteration,
            versions: 0,
        };
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    fn serve(&self, mut client: StreamOwned<ServerConnection, TcpStream>) -> io::Result<()> {
        client.sock.set_read_timeout(Some(Duration::from_secs(90)))?;
        while self.serve_one(&mut client)? {}
        Ok(())
    }

    /// Answers one request; whether there may be another.
    fn serve_one(&self, client: &mut StreamOwned<ServerConnection, TcpStream>) -> io::Result<bool> {
        let (head, mut body) = head(client)?;
        let length = field(&head, "content-length").and_then(|length| length.parse().ok());
        let mut rest = vec![0; length.unwrap_or(0_usize).saturating_sub(body.len())];
        client.read_exact(&mut rest)?;
        body.extend(rest);
        if let Some(answer) = self.own_answer(&head) {
            client.write_all(answer.as_bytes())?;
        } else {
            self.pass_on(&head, &body, client)?;
        }
        client.flush()?;
        Ok(!field(&head, "connection").is_some_and(|connection| connection.eq_ignore_ascii_case("close")))
    }

    fn own_answer(&self, head: &str) -> Option<String> {
        let mut words = head.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let mut state = locked(&self.state);
        if path.split('?').next() == Some("/version") {
            state.versions += 1;
            let (after, version) = state.alteration.version.clone()?;
            let said = (state.versions > after).then_some(version)?;
            return Some(match said.is_empty() {
                true => answer("503 Service Unavailable", "{}"),
                false => answer(
                    "200 OK",
                    &format!(r#"{{"major":"1","minor":"0","gitVersion":"{said}"}}"#),
                ),
            });
        }
        let writes = !matches!(method, "GET" | "HEAD") && !path.contains("dryRun=") && !path.contains("reviews");
        (writes && state.alteration.refuses_writes).then(|| {
            let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"writes are not wanted here"}"#;
            answer("403 Forbidden", status)
        })
    }

    fn pass_on(&self, head: &str, body: &[u8], client: &mut impl Write) -> io::Result<()> {
        let mut server = http::connect(self.port, &self.authority_pem, None);
        let sent = without(head, "connection") + "connection: close\r\n\r\n";
        server.write_all(sent.as_bytes())?;
        server.write_all(body)?;
        server.flush()?;
        let (answer, part) = self::head(&mut server)?;
        let date = locked(&self.state).alteration.date;
        // It ends as its length or its last chunk says, also where the connection goes on.
        let answer = without(&answer, "connection");
        let answer = match date {
            None => answer,
            Some(date) => without(&answer, "date") + &format!("date: {date}\r\n"),
        };
        client.write_all((answer + "\r\n").as_bytes())?;
        client.write_all(&part)?;
        client.flush()?;
        let mut buffer = vec![0; 16 << 10];
        loop {
            match server.read(&mut buffer)? {
                0 => return Ok(()),
                read => {
                    client.write_all(&buffer[..read])?;
                    client.flush()?;
                }
            }
        }
    }
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A head with its lines' ends, without the empty line, and what has come after it.
fn head(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = bytes.split_off(end + 4);
            bytes.truncate(end + 2);
            let head = String::from_utf8(bytes).map_err(io::Error::other)?;
            return Ok((head, rest));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if bytes.len() > HEAD => return Err(io::ErrorKind::InvalidData.into()),
            read => bytes.extend(&buffer[..read]),
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then(|| value.trim()))
}

fn without(head: &str, name: &str) -> String {
    let is_it = |line: &&str| {
        line.split_once(':')
            .is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
    };
    let kept = head.split_inclusive('\n').filter(|line| !is_it(line));
    kept.collect()
}
