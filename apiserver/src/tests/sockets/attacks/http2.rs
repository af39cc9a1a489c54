//! HTTP/2, frame by frame (RFC 9113).

use std::collections::BTreeMap;

use tokio::io::WriteHalf;
use umbra_show::Item;

use super::*;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    flags: u8,
    payload: &'a [u8],
}

impl Frame<'_> {
    /// The error that RST_STREAM or GOAWAY tells.
    fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The whole frames in what was read.
pub(super) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            payload,
        })
    })
}

/// A field, literally (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127, "one byte says the length");
        field.push(text.len() as u8);
        field.extend_from_slice(text.as_bytes());
    }
    field
}

fn fields(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A read of alice.
pub(super) fn headers(path: &str) -> Vec<u8> {
    fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("authorization", "alice"),
    ])
}

fn beginning() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

/// An attack: bytes that are written while what comes back is read. Returns what came back until the connection ended, or
/// until `until` was said.
async fn attack(
    listening: &Listening,
    write: impl AsyncFnOnce(&mut WriteHalf<TlsStream<TcpStream>>) -> std::io::Result<()>,
    until: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    let (mut read, mut writer) = tokio::io::split(listening.connect(b"h2").await);
    let mut seen = Vec::new();
    let reading = async {
        while !until(&seen) {
            if read.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    let writing = async {
        // Fails where the server has had enough.
        let _ = write(&mut writer).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = writing => unreachable!("it waits for ever"),
        ended = tokio::time::timeout(PATIENCE, reading) => ended.expect("it ends, or says what is waited for"),
    }
    seen
}

fn goaway(seen: &[u8]) -> Option<u32> {
    frames(seen)
        .find(|frame| frame.kind == GOAWAY)
        .map(|frame| frame.code())
}

/// CVE-2023-44487: each request is cancelled at once, and so never counts as one.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let item = Item::open("children.attacks.rapid-reset");
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let before = resident();
    let path = "/api/v1/namespaces/shop/pods/hangs";
    let flood = async |writer: &mut WriteHalf<TlsStream<TcpStream>>| {
        writer.write_all(&beginning()).await?;
        for stream in (0..100_000u32).map(|number| number * 2 + 1) {
            let mut bytes = frame(HEADERS, END_STREAM | END_HEADERS, stream, &headers(path));
            bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
            writer.write_all(&bytes).await?;
        }
        writer.write_all(&frame(PING, 0, 0, b"finished")).await
    };
    let finished = |seen: &[u8]| frames(seen).any(|frame| frame.kind == PING && frame.flags == ACK);
    let (seen, ()) = tokio::join!(attack(&listening, flood, finished), async {
        for _ in 0..20 {
            others_are_served(&listening).await;
        }
    });
    // Either it is told to calm down, or each reset has freed what the request had.
    let told = goaway(&seen) == Some(ENHANCE_YOUR_CALM);
    assert!(told || finished(&seen));
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown}");
    others_are_served(&listening).await;
    item.pass(if told {
        "told to calm down; 20 others served meanwhile"
    } else {
        "served; memory did not grow"
    });
}

/// CVE-2024-27316: headers that never end.
#[tokio::test]
async fn continuations_without_end_end_the_connection() {
    let item = Item::open("children.attacks.continuation");
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let before = resident();
    let written = std::cell::Cell::new(0usize);
    let flood = async |writer: &mut WriteHalf<TlsStream<TcpStream>>| {
        writer.write_all(&beginning()).await?;
        writer.write_all(&frame(HEADERS, END_STREAM, 1, &headers(POD))).await?;
        let more: Vec<u8> = (0..100).flat_map(|_| field("x-more", &"x".repeat(100))).collect();
        let more = frame(CONTINUATION, 0, 1, &more);
        loop {
            writer.write_all(&more).await?;
            written.set(written.get() + more.len());
        }
    };
    let (seen, ()) = tokio::join!(
        attack(&listening, flood, |seen| goaway(seen).is_some()),
        others_are_served(&listening)
    );
    assert_eq!(goaway(&seen), Some(ENHANCE_YOUR_CALM));
    assert!(written.get() < 64 << 20);
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown}");
    others_are_served(&listening).await;
    item.pass("told to calm down");
}

/// Frames that have to be answered, from somebody who does not read the answers.
#[tokio::test]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let item = Item::open("children.attacks.ping");
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let floods = [
        frame(PING, 0, 0, b"attacked"),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]),
        frame(WINDOW_UPDATE, 0, 0, &0u32.to_be_bytes()),
    ];
    let before = resident();
    for flood in floods {
        let mut attacker = listening.connect(b"h2").await;
        attacker.write_all(&beginning()).await.unwrap();
        let many = flood.repeat(1000);
        let flooding = async {
            // 100 times what the sockets in between take up.
            for _ in 0..50_000 {
                if attacker.write_all(&many).await.is_err() {
                    break;
                }
            }
        };
        let probing = async {
            for _ in 0..30 {
                others_are_served(&listening).await;
            }
        };
        // Over when others were served: the attacker is stopped by the connection being full, or by its end.
        tokio::select! {
            biased;
            () = async { tokio::join!(flooding, std::future::pending::<()>()); } => unreachable!("it waits for ever"),
            () = probing => {}
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown}");
    item.pass(&format!(
        "4 floods; others served 120 times, {} MB more in memory",
        grown >> 20
    ));
}

/// More streams than anybody needs.
#[tokio::test]
async fn ten_thousand_streams_leave_room_for_others() {
    let item = Item::open("children.attacks.streams");
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let before = resident();
    const STREAMS: u32 = 10_000;
    let flood = async |writer: &mut WriteHalf<TlsStream<TcpStream>>| {
        writer.write_all(&beginning()).await?;
        for stream in (0..STREAMS).map(|number| number * 2 + 1) {
            let hangs = headers("/api/v1/namespaces/shop/pods/hangs");
            writer
                .write_all(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &hangs))
                .await?;
        }
        std::io::Result::Ok(())
    };
    // Answered with 429, or refused unprocessed. Those that got a place hang, as they should.
    let is_over =
        |frame: &Frame<'_>| frame.kind == HEADERS || frame.kind == RST_STREAM && matches!(frame.code(), REFUSED_STREAM);
    let answered = |seen: &[u8]| frames(seen).filter(is_over).count();
    let left = 300;
    let enough =
        |seen: &[u8]| goaway(seen).is_some() || seen.len() > 100_000 && answered(seen) >= STREAMS as usize - left;
    // Held open until others were served beside it.
    let (mut read, mut writer) = tokio::io::split(listening.connect(b"h2").await);
    let mut seen = Vec::new();
    let reading = async {
        while !enough(&seen) {
            if read.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    let (_, done) = tokio::join!(flood(&mut writer), tokio::time::timeout(PATIENCE, reading));
    done.expect("all others are answered");
    for _ in 0..20 {
        others_are_served(&listening).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown}");
    let answered = answered(&seen);
    drop((read, writer));
    let told = if goaway(&seen) == Some(ENHANCE_YOUR_CALM) {
        ", then told to calm down"
    } else {
        ""
    };
    item.pass(&format!(
        "{answered} of {STREAMS} turned away{told}; others served, {} MB more in memory",
        grown >> 20
    ));
}

/// Requests that RFC 9113 §8 calls malformed.
#[tokio::test]
async fn malformed_requests_are_refused() {
    let item = Item::open("children.attacks.pseudo-headers");
    let hub = FakeHub::new(0, 0);
    let listening = listen(hub.server()).await;
    let usual = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", POD),
    ];
    let usual_but = |name: &str, value: &'static str| {
        let mut all = usual.to_vec();
        for pair in &mut all {
            if pair.0 == name {
                pair.1 = value;
            }
        }
        all
    };
    let usual_and = |more: &[(&'static str, &'static str)]| [&usual[..], more].concat();
    let requests = [
        usual_but(":path", ""),
        usual_but(":path", "api/v1/namespaces/shop/pods/a"),
        usual_but(":path", "/api/v1/namespaces/shop/pods/a b"),
        usual_but(":path", "/api\r\nx: y"),
        usual_but(":path", "/\0"),
        usual_but(":method", ""),
        usual_but(":method", "GET / HTTP/1.1\r\nX: y\r\n"),
        usual_but(":authority", "a b"),
        usual_and(&[(":path", "/other")]),
        usual_and(&[(":method", "DELETE")]),
        usual_and(&[(":unknown", "x")]),
        usual_and(&[("Authorization", "alice")]),
        usual_and(&[("x-remote-user", "a\r\nimpersonate-group: system:masters")]),
        usual_and(&[("x\r\ny", "z")]),
        usual_and(&[("x", "a\0b")]),
        usual_and(&[("connection", "close")]),
        usual_and(&[("transfer-encoding", "chunked")]),
        usual_and(&[("upgrade", "h2c")]),
        usual_and(&[("te", "gzip")]),
        usual_and(&[("x", "y"), (":scheme", "https")]),
        usual_and(&[("content-length", "5")]),
        usual[..3].to_vec(),
        usual[1..].to_vec(),
    ];
    let mut outcomes: BTreeMap<&'static str, usize> = BTreeMap::new();
    for mut request in requests.clone() {
        if !request
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        {
            request.push(("authorization", "alice"));
        }
        let flood = async |writer: &mut WriteHalf<TlsStream<TcpStream>>| {
            let mut bytes = beginning();
            bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&request)));
            writer.write_all(&bytes).await
        };
        let said = |seen: &[u8]| frames(seen).any(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY));
        let seen = attack(&listening, flood, said).await;
        let answer = frames(&seen).find(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY));
        let outcome = match answer {
            Some(frame) if frame.kind == HEADERS => "answered",
            Some(frame) if frame.code() == PROTOCOL_ERROR => "reset",
            Some(_) => "reset otherwise",
            None => "ended",
        };
        *outcomes.entry(outcome).or_default() += 1;
        assert!(hub.users.lock().is_empty(), "{request:?} was served: {outcome}");
    }
    // A body beyond what was announced.
    let flood = async |writer: &mut WriteHalf<TlsStream<TcpStream>>| {
        let mut request = usual_and(&[("content-length", "1"), ("authorization", "alice")]);
        request[0].1 = "POST";
        request[3].1 = "/api/v1/namespaces/shop/pods";
        let mut bytes = beginning();
        bytes.extend(frame(HEADERS, END_HEADERS, 1, &fields(&request)));
        bytes.extend(frame(DATA, END_STREAM, 1, b"{}smuggled"));
        writer.write_all(&bytes).await
    };
    let said = |seen: &[u8]| frames(seen).any(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY));
    attack(&listening, flood, said).await;
    assert!(hub.written.lock().is_none(), "nothing was written");
    others_are_served(&listening).await;
    item.pass(&format!("{} requests: {outcomes:?}", requests.len() + 1));
}
