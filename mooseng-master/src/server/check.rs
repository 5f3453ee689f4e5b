//! fsck on a thread of its own.

use std::sync::Arc;

use bytes::Bytes;
use mooseng_env::Threads;
use mooseng_meta::{MetaStore, StoreView, check_view};
use mooseng_protocol::status::CallError;
use mooseng_types::CellId;

use super::Inbox;

/// Checks the rows of `store`, which is this cell's, as they stand; what is found goes to the inbox.
pub(super) fn start(threads: &Threads, inbox: &Arc<Inbox>, store: Arc<dyn MetaStore>, cell: CellId) {
    let to = Arc::clone(inbox);
    let started = threads.spawn("fsck", move || {
        let view = UntilStopped { view: store.view(), inbox: Arc::clone(&to) };
        let found = check_view(Arc::new(view), cell);
        to.checked(match found {
            _ if to.stopping() => {
                Err(CallError::Unavailable { message: "this master is told to stop".into() })
            }
            found => found.map_err(|error| CallError::Rejected { message: error.to_string() }),
        });
    });
    if let Err(error) = started {
        tracing::error!(%error, "no thread for a check");
        inbox.checked(Err(CallError::Unavailable { message: error.to_string() }));
    }
}

/// Ends early when the master is told to stop. What is then found is worth nothing.
struct UntilStopped {
    view: Box<dyn StoreView>,
    inbox: Arc<Inbox>,
}

impl StoreView for UntilStopped {
    fn scan(&self, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.view.scan(from, &mut |key, value| !self.inbox.stopping() && visit(key, value));
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.view.get(key)
    }
}
