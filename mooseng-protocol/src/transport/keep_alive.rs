//! Connections to machines that have died without a word.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// Silence after which the other machine is asked whether it still has the connection.
const IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer after which the connection has failed.
const UNANSWERED_MAX: u32 = 3;

/// Lets a connection fail within a minute if the machine at its other end is gone (`tcp(7)`, `SO_KEEPALIVE`): whoever
/// only waits, for a request or for an answer, sends nothing that would tell.
pub fn keep_alive(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_keepidle(&socket, IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, UNANSWERED_MAX)?;
    Ok(sockopt::set_socket_keepalive(&socket, true)?)
}
