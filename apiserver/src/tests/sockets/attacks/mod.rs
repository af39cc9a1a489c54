//! What nobody sends by mistake, sent to a real listener: it answers properly or ends the connection, and serves others.

mod http1;
mod http2;
mod slow;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// The path of a pod that can be read; each read counts in `FakeHub::users`.
const POD: &str = "/api/v1/namespaces/shop/pods/a";

/// Sends bytes, and reads until the server ends the connection.
async fn exchange(listening: &Listening, protocol: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut stream = listening.connect(protocol).await;
    // The server may well end the connection before it has everything.
    let _ = stream.write_all(bytes).await;
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // How it ends does not matter, that it does does.
    let _ = ended.expect("the server ends the connection");
    answer
}

/// Somebody else is served.
async fn others_are_served(listening: &Listening) {
    let io = TokioIo::new(listening.connect(b"h2").await);
    let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    TaskTracker::new().spawn(connection);
    let request = Request::get(format!("https://localhost{POD}"))
        .header("authorization", "bob")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = tokio::time::timeout(PATIENCE, requests.send_request(request)).await;
    assert_eq!(answer.unwrap().unwrap().status(), 200);
}

/// What this process has in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
