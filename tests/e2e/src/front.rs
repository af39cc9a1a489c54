//! What a Service with endpoints does: leads each connection to a replica that takes it.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Leads connections to the replicas in turn, and past those that do not take them.
#[derive(Debug)]
pub(crate) struct Front {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The port of the only replica to lead to.
    only: Option<u16>,
    /// One end of every connection that was led on.
    connections: Vec<TcpStream>,
}

impl Front {
    /// Begins to lead connections to replicas at these ports of 127.0.0.1.
    pub(crate) fn start(replicas: [u16; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let Ok(client) = client else { continue };
                let mut order = replicas;
                order.rotate_left(number % replicas.len());
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let only = state.only;
                let server = order
                    .iter()
                    .filter(|port| only.is_none_or(|only| only == **port))
                    .find_map(|port| TcpStream::connect(("127.0.0.1", *port)).ok());
                // Where no replica takes it, it is closed.
                let Some(server) = server else { continue };
                lead(&client, &server);
                state.connections.push(server);
            }
        });
        Self { port, state }
    }

    /// The port of 127.0.0.1 that leads to the replicas.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Leads every new connection to the replica at one port, and ends those that there are; `None` leads to all in turn.
    pub(crate) fn lead_to(&self, only: Option<u16>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.only = only;
        if only.is_some() {
            for connection in state.connections.drain(..) {
                // It may have ended by itself.
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
    }
}

fn lead(client: &TcpStream, server: &TcpStream) {
    for (from, to) in [(client, server), (server, client)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        std::thread::spawn(move || {
            // Either end may break off; the other one hears of it.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
