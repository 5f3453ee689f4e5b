//! Whose turn it is at a disk: work that somebody waits for, or work in the background. A value without threads and clocks.

/// Pieces of clients' work in a row, at most, while background work waits: enough for that to be hardly felt, few enough for it to
/// get somewhere on a disk that is never idle.
const CLIENT_TURNS_MAX: u32 = 32;

/// A class of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// A client, another server or an administrator waits for it.
    Client,
    /// Nobody waits for it now.
    Background,
}

/// Decides between the classes.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Pieces of clients' work since background work has waited.
    in_a_row: u32,
}

impl Turns {
    /// The class of the next piece, of those that have one; `None` if none has.
    pub(super) fn next(&mut self, client: bool, background: bool) -> Option<Class> {
        let class = match (client, background) {
            (false, false) => return None,
            (true, false) => Class::Client,
            (false, true) => Class::Background,
            (true, true) if self.in_a_row < CLIENT_TURNS_MAX => {
                self.in_a_row += 1;
                return Some(Class::Client);
            }
            (true, true) => Class::Background,
        };
        self.in_a_row = 0;
        Some(class)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn clients_go_first_and_background_work_is_never_starved(
            waits in prop::collection::vec((any::<bool>(), any::<bool>()), 1..500),
        ) {
            let mut turns = Turns::default();
            let mut waited = 0;
            for (client, background) in waits {
                let class = turns.next(client, background);
                prop_assert_eq!(class.is_some(), client || background);
                match class {
                    Some(Class::Client) => prop_assert!(client),
                    Some(Class::Background) => {
                        prop_assert!(background);
                        prop_assert!(!client || waited == CLIENT_TURNS_MAX);
                    }
                    None => {}
                }
                waited = if background && class == Some(Class::Client) { waited + 1 } else { 0 };
                prop_assert!(waited <= CLIENT_TURNS_MAX);
            }
        }
    }
}
