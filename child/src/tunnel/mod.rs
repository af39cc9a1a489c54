//! Tunnels: a child that the hub cannot dial is reached over a connection that an agent in it has opened.
//!
//! The agent asks the hub for `GET …/managedclusters/{cluster}/tunnel` over HTTP/1.1 with a client certificate, and asks to
//! switch to [`PROTOCOL`]. After the 101 both speak yamux on that connection. The hub opens the streams:
//!
//! | first byte | what follows |
//! |---|---|
//! | [`CONTROL`] | one stream, the first: heartbeats both ways, and the wish of either side to be asked no more |
//! | [`HTTP`] | an HTTP connection as the child's API server would serve it: HTTP/2 with prior knowledge, or HTTP/1.1 |
//!
//! So to the hub a tunnel is a [`Connector`](crate::Connector) ([`TunnelConnector`]): pools, lanes, proxying and upgrades are
//! the same as for a child that is dialled. The agent ([`agent`]) sends each request on to its own API server with its own
//! credential.
//!
//! **Why an HTTP upgrade and not a WebSocket:** the hub's port needs the agent's certificate, so whatever stands in between
//! passes TLS through and sees neither; a WebSocket would add a frame and a mask to each yamux frame for nothing.
//! HTTP proxies on the way are passed by `CONNECT`.
//!
//! **Trust.** The hub believes a tunnel no more than a child: it never answers streams that the agent opens (one ends the
//! tunnel), and what it buffers is bounded, in payload ([`mux`]) and in frames ([`frames`]). Nor are there more tunnels of a cluster or
//! an agent than [`Tunnels::reserve`] gives room to. The agent believes the hub, which acts in the child with the agent's
//! permissions; that is what it is there for.
//!
//! **Time.** The hub sends a heartbeat every 5 s and the agent returns it. Who hears nothing for 15 s takes the other for
//! dead, as one lost packet with its retransmissions takes less.

pub mod agent;
mod control;
mod frames;
mod hub;
mod mux;
mod requests;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use hub::{Peers, Slot, TooManyTunnels, TunnelConnector, Tunnels};

/// What the agent asks to switch to, and the hub agrees to.
pub const PROTOCOL: &str = "umbra-tunnel/1";
/// What another replica of the hub asks to switch to: one stream of a tunnel that ends here.
pub const STREAM_PROTOCOL: &str = "umbra-stream/1";

/// The first byte of the stream of heartbeats.
pub const CONTROL: u8 = b'c';
/// The first byte of a stream of HTTP.
pub const HTTP: u8 = b'h';

/// How often the hub sends a heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// For how long nothing is heard of a side that lives.
const SILENCE: Duration = Duration::from_secs(15);
/// How long what is under way on a tunnel may go on after its side has asked for no more.
pub const GRACE: Duration = Duration::from_secs(30);
