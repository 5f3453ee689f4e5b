//! A connection that is given up as soon as nobody wants it any more: a machine that is off answers nothing, and one
//! whose process hangs accepts and says nothing.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use mooseng_protocol::handshake::Caller;
use mooseng_protocol::pb;
use mooseng_protocol::status::{CallError, TransportError};
use mooseng_protocol::transport::{FrameStream, Socket};

use super::super::wire;

/// Connects to `address` ("host:port"), and both sides prove that they belong together. Every `slice` without progress `keep_waiting` is asked
/// whether to go on.
pub(super) fn dial(
    address: &str,
    caller: &Caller,
    slice: Duration,
    keep_waiting: impl Fn() -> bool,
) -> Result<(FrameStream, pb::HelloReply), CallError> {
    let failed = |source| TransportError::Io { action: "connect to", peer: address.to_owned(), source };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs().map_err(failed)? {
        match connected(candidate, slice, &keep_waiting) {
            Ok(socket) => {
                let mut stream = FrameStream::new(socket).map_err(failed)?;
                let asking = caller.begin();
                let challenge = wire::exchange(&mut stream, asking.hello(), &[], slice, &keep_waiting)?;
                let proving = asking.challenged(&challenge)?;
                let welcome = wire::exchange(&mut stream, &proving.proof(), &[], slice, &keep_waiting)?;
                return Ok((stream, proving.welcomed(&welcome)?));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last).into())
}

fn connected(address: SocketAddr, slice: Duration, keep_waiting: impl Fn() -> bool) -> io::Result<Socket> {
    let socket = Socket::dial(address)?;
    while !(socket.wait_writable(slice)? && socket.is_connected()?) {
        if !keep_waiting() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    socket.set_nonblocking(false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::TcpListener;

    use mooseng_env::SystemEntropy;
    use mooseng_protocol::principal::PrincipalKey;

    use super::*;

    const SLICE: Duration = Duration::from_millis(5);

    fn caller() -> Caller {
        let key = PrincipalKey::new(&[7; 32]);
        wire::Own::of(&crate::config::ClientConfig::default(), key, &SystemEntropy).caller()
    }

    #[test]
    fn one_that_accepts_and_says_nothing_is_given_up_when_nobody_waits_any_more() {
        let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = Cell::new(0);
        let keep_waiting = || asked.replace(asked.get() + 1) < 3;
        let outcome = dial(&frozen.local_addr().unwrap().to_string(), &caller(), SLICE, keep_waiting);
        assert!(matches!(outcome, Err(CallError::Transport(TransportError::TimedOut { .. }))), "{outcome:?}");
        assert_eq!(asked.get(), 4);
    }

    #[test]
    fn one_that_is_gone_is_noticed_at_once() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let outcome = dial(&address.to_string(), &caller(), Duration::from_secs(60), || true);
        assert!(matches!(outcome, Err(CallError::Transport(TransportError::Io { .. }))), "{outcome:?}");
    }
}
