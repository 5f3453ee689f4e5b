//! Every connection is a `transport::Socket`: only its own file names what the operating system gives. Tests may: they play
//! the other side.

use super::Finding;
use super::source::{Tree, has_word, is_test_file};

const SOCKET: &str = "mooseng-protocol/src/transport/socket.rs";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| path.starts_with("mooseng-") && !is_test_file(path)) {
        if path == SOCKET {
            continue;
        }
        for (index, line) in text.lines().take_while(|line| *line != "mod tests {").enumerate() {
            let code = line.split_once("//").map_or(line, |(code, _)| code);
            if has_word(code, "TcpStream") {
                findings.push(Finding::at(path, index + 1, "`TcpStream`: hold a `transport::Socket`"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_stream_is_found_in_every_spelling() {
        for line in [
            "use std::net::{Shutdown, TcpStream};",
            "use mio::net::TcpStream;",
            "let socket = tokio::net::TcpStream::connect(address).await?;",
        ] {
            assert_eq!(check(&Tree::of(&[("mooseng-master/src/server/x.rs", line)])).len(), 1, "{line}");
        }
    }

    #[test]
    fn the_sockets_own_file_tests_comments_and_other_words_pass() {
        let files = [
            (SOCKET, "pub struct Socket(TcpStream);"),
            ("mooseng-client/tests/it/fake.rs", "use std::net::TcpStream;"),
            ("mooseng-client/src/edge/masters/tests.rs", "use std::net::TcpStream;"),
            ("mooseng-client/src/x.rs", "#[cfg(test)]\nmod tests {\n    use std::net::TcpStream;\n}\n"),
            ("mooseng-master/src/server/grpc.rs", "TcpListenerStream::new(listener) // TcpStream"),
        ];
        assert!(check(&Tree::of(&files)).is_empty());
    }
}
