//! *A retried operation happens once* (DESIGN §1, promise 3): however often a request was sent and whoever answered it,
//! the answer is that of one execution: no `EEXIST` for one's own create, no second name counted.

use mooseng_protocol::pb;
use mooseng_types::FsError;

use crate::oracle::{Model, NodeId, Op};

/// What is wrong with the answer to `op`, which `expected` the model to answer, and left it at `after`.
pub(crate) fn same_answer(
    op: &Op,
    answer: &Result<Option<pb::Attr>, FsError>,
    expected: &Result<Option<NodeId>, FsError>,
    after: &Model,
) -> Option<String> {
    match (answer, expected) {
        (Ok(Some(attr)), Ok(node)) => {
            let node = node.or(op.target())?;
            let (content, links, _) = after.file(node).filter(|_| !after.is_unsure(node))?;
            let length = content.len() as u64;
            let (size, names) = (attr.size, attr.nlink);
            ((size, names) != (length, links)).then(|| {
                format!("applied_once: {op:?} left {size} bytes, {names} names, not {length} and {links}")
            })
        }
        (Ok(None), Ok(_)) => None,
        (Err(error), Err(expected)) if error == expected => None,
        _ => {
            let answer = answer.as_ref().map(|_| "done");
            Some(format!("applied_once: {op:?} was answered {answer:?}, expected {expected:?}"))
        }
    }
}
