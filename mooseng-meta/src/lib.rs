//! The MooseNG namespace as a deterministic state machine over an ordered store
