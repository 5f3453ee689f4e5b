//! Entries of the masters' log and the answers kept for repeated requests: one value has one form, so what decodes
//! encodes to the very bytes it came from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooseng_meta::{Entry, Response};

fuzz_target!(|data: &[u8]| {
    let Some((selector, bytes)) = data.split_first() else { return };
    if selector & 1 == 0 {
        if let Ok(entry) = Entry::decode(bytes) {
            assert_eq!(entry.encode(), bytes, "{entry:?}");
        }
        return;
    }
    match Response::decode(bytes) {
        // A refusal of a later release is read as an I/O error, so the number may change once.
        Ok(refused @ Response::Refused(_)) => {
            assert_eq!(Response::decode(&refused.encode()), Ok(refused));
        }
        Ok(response) => assert_eq!(response.encode(), bytes, "{response:?}"),
        Err(_) => {}
    }
});
