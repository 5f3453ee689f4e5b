//! The MooseNG client: a file system library, and its FUSE mount
