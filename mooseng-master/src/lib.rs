//! The MooseNG master: Raft, the metadata service, chunk placement
