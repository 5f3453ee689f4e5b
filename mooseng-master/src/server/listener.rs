//! The socket that others connect to.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use mooseng_protocol::transport::Socket;

#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    failed: bool,
}

impl Listener {
    /// Listens; the poll speaks of it as `token`.
    pub(super) fn bind(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut socket = TcpListener::bind(address)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Self { socket, failed: false })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next one who has connected; its socket does not block. Not to be able to accept ends no service; it is said once.
    pub(super) fn next(&mut self) -> Option<(Socket, SocketAddr)> {
        loop {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    self.failed = false;
                    return Some((Socket::accepted(stream), peer));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.failed = false;
                    return None;
                }
                // One that has gone again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        tracing::warn!(%error, "connections are not accepted; trying on");
                    }
                    return None;
                }
            }
        }
    }

    /// Whether somebody may wait of whom the poll has spoken already: too many files were open, most likely.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }
}
