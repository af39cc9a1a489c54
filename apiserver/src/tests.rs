//! Behaviour over whole requests, with roots made for the purpose.

mod fake;
mod protocol;
mod reads;
mod sockets;
mod watches;
mod writes;
