//! Parts of a chunk, along a chain and on the order of a master.

use std::io::IoSlice;

use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_protocol::{checksum, pb};
use mooseng_types::{ChunkCause, ChunkId, Part};

use crate::master::Master;
use crate::support::{
    SOON, fault, pattern, read, read_request, start, token, token_for, write, write_request,
};

fn part(index: u8) -> Part {
    Part::new(ChunkId::from_raw(7), index).unwrap()
}

fn write_part(of: Part, bytes: &[u8], chain: &[pb::ServerAddress]) -> pb::WriteChunkRequest {
    pb::WriteChunkRequest {
        part: of.index().into(),
        checksums: checksum::of_range(of, 0, bytes),
        ..write_request(&token_for(of, 1, 1, true), of.chunk().raw(), 0, bytes, chain)
    }
}

fn read_part(stream: &mut FrameStream, of: Part) -> Result<Vec<u8>, CallError> {
    let request = pb::ReadChunkRequest {
        part: of.index().into(),
        token: token_for(of, 1, 1, false),
        ..read_request(of.chunk().raw(), 1, 0, 1 << 20)
    };
    let reply = stream.call(&request, &[], SOON)?;
    let mut bytes = vec![0; stream.reader().payload_left()];
    stream.reader().read_payload(&mut bytes)?;
    assert!(checksum::matches(of, reply.offset.into(), &bytes, &reply.checksums), "bytes do not verify");
    Ok(bytes)
}

#[test]
fn a_part_goes_down_a_chain_as_that_part_and_as_nothing_else() {
    let servers = [start(vec![]), start(vec![])];
    let chain = [pb::ServerAddress { server: 2, address: servers[1].address() }];
    let mut client = servers[0].connect();
    let (bytes, whole) = (pattern(300_000, 1), pattern(1000, 2));
    client.call(&write_part(part(3), &bytes, &chain), &[IoSlice::new(&bytes)], SOON).unwrap();
    write(&mut client, &write_request(&token(7, 1, 1, true), 7, 0, &whole, &chain), &whole).unwrap();
    let of_part = (token_for(part(3), 1, 1, false), u32::from(part(3).index()), chain.to_vec());
    let (token, index, behind) = of_part.clone();
    let cut =
        pb::TruncateChunkRequest { token, chunk: 7, version: 1, length: 200_000, chain: behind, part: index };
    client.call(&cut, &[], SOON).unwrap();
    let (token, index, behind) = of_part;
    let sync = pb::SyncChunkRequest { token, chunk: 7, version: 1, chain: behind, part: index };
    client.call(&sync, &[], SOON).unwrap();
    for server in &servers {
        let mut client = server.connect();
        assert!(read_part(&mut client, part(3)).unwrap() == bytes[..200_000]);
        assert!(read(&mut client, 7, 1, 0, 1000).unwrap().1 == whole);
        let none = read_part(&mut client, part(4)).unwrap_err();
        assert_eq!(fault(&none), Some((0, ChunkCause::NoCopy)), "{none}");
    }
    let mixed = pb::SyncChunkRequest { part: 0, ..sync.clone() };
    let refused = client.call(&mixed, &[], SOON).unwrap_err();
    assert_eq!(fault(&refused), Some((0, ChunkCause::TokenInvalid)), "{refused}");
    let none = client.call(&pb::SyncChunkRequest { part: 49, ..sync }, &[], SOON).unwrap_err();
    assert!(none.to_string().contains("c7 has no part 49"), "{none}");
}

#[test]
fn the_leader_has_a_part_fetched_and_deleted_and_hears_of_that_part() {
    let mut master = Master::new();
    let source = start(vec![]);
    let bytes = pattern(2_345_678, 3);
    let mut client = source.connect();
    for (i, piece) in bytes.chunks(1 << 20).enumerate() {
        let offset = (i << 20) as u32;
        let request = pb::WriteChunkRequest {
            offset,
            checksums: checksum::of_range(part(9), offset.into(), piece),
            ..write_part(part(9), b"", &[])
        };
        client.call(&request, &[IoSlice::new(piece)], SOON).unwrap();
    }
    let server = start(vec![master.address()]);
    master.accept();
    assert!(master.next_report(3).chunks.is_empty());
    master.push(&pb::CopyChunk {
        chunk: 7,
        version: 1,
        source: source.address(),
        token: token_for(part(9), 1, 1, false),
        replace: false,
        part: 9,
    });
    let report = master.next_report(3);
    assert_eq!(
        report.chunks,
        [pb::CopyStatus { chunk: 7, version: 1, in_doubt: false, part: 9, verified: true }]
    );
    assert!(read_part(&mut server.connect(), part(9)).unwrap() == bytes[..1 << 20]);

    let named = |index| pb::PartRef { chunk: 7, index };
    master.push(&pb::DeleteChunks { chunks: vec![7], parts: vec![named(9)] });
    let (mut lost, mut lost_parts) = (Vec::new(), Vec::new());
    while lost.len() + lost_parts.len() < 2 {
        let report = master.next_report(3);
        assert!(report.chunks.is_empty(), "{report:?}");
        lost.extend(report.lost);
        lost_parts.extend(report.lost_parts);
    }
    assert_eq!((lost, lost_parts), (vec![7], vec![named(9)]));
    assert!(read_part(&mut server.connect(), part(9)).is_err());
}
