use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener as Listener, TcpStream as Stream};

use super::*;
use crate::wait;

/// A server that says everything twice.
fn server() -> SocketAddr {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    if client.write_all(&buffer[..read].repeat(2)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn proxy() -> FaultProxy {
    let authority = CertificateAuthority::create("test", Duration::from_secs(3600)).unwrap();
    FaultProxy::start(server(), &authority)
}

fn connect(proxy: &FaultProxy) -> Stream {
    let stream = Stream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    stream
}

fn ask(stream: &mut Stream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len() * 2];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8(answer).unwrap())
}

/// Whether nothing comes for a while.
fn silent(stream: &mut Stream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn dropped_packets_arrive_later_and_syns_are_not_answered() {
    let proxy = proxy();
    let mut open = connect(&proxy);
    assert_eq!(ask(&mut open, "ab").unwrap(), "abab");
    proxy.set(Fault::Dropped);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
    wait::until(
        "connections time out",
        wait::DEADLINE,
        || match Stream::connect_timeout(&address, Duration::from_millis(100)) {
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    open.write_all(b"cd").unwrap();
    assert!(silent(&mut open));
    proxy.set(Fault::None);
    let mut answer = [0; 4];
    open.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"cdcd");
    assert_eq!(ask(&mut connect(&proxy), "ef").unwrap(), "efef");
}

#[test]
fn a_mute_server_takes_connections_and_answers_later() {
    let proxy = proxy();
    proxy.set(Fault::Mute);
    let mut stream = connect(&proxy);
    stream.write_all(b"ab").unwrap();
    assert!(silent(&mut stream));
    proxy.set(Fault::None);
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"abab");
}

#[test]
fn refusals_and_resets_are_those_of_tcp() {
    let proxy = proxy();
    let mut open = connect(&proxy);
    assert_eq!(ask(&mut open, "ab").unwrap(), "abab");
    proxy.set(Fault::Refused);
    assert_eq!(open.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    wait::until("connections are refused", wait::DEADLINE, || {
        match Stream::connect(("127.0.0.1", proxy.port())) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    proxy.set(Fault::Reset(8));
    wait::until("it listens again", wait::DEADLINE, || {
        Stream::connect(("127.0.0.1", proxy.port()))
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let mut open = connect(&proxy);
    assert_eq!(ask(&mut open, "ab").unwrap(), "abab");
    assert_eq!(ask(&mut open, "cd").unwrap(), "cdcd");
    let mut rest = Vec::new();
    assert_eq!(
        open.read_to_end(&mut rest).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}
