//! The MooseNG chunkserver: chunk store, write chain, zero-copy reads
