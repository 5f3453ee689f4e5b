//! The configuration files of master, chunkserver and mount: any text is taken or refused in words, and what a key
//! checks holds afterwards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooseng_chunkserver::Config as ChunkserverConfig;
use mooseng_client::ClientConfig;
use mooseng_master::config::ConfigFile;

fuzz_target!(|data: &[u8]| {
    let Some((selector, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let error = match selector % 3 {
        0 => ConfigFile::parse(text).err().map(|error| error.to_string()),
        1 => match ChunkserverConfig::parse(text) {
            Ok(config) => {
                assert!(config.check().is_ok());
                None
            }
            Err(error) => Some(error.to_string()),
        },
        _ => match ClientConfig::parse(text) {
            Ok(config) => {
                assert!(config.check().is_ok());
                None
            }
            Err(error) => Some(error.to_string()),
        },
    };
    if let Some(error) = error {
        assert!(!error.is_empty());
    }
});
