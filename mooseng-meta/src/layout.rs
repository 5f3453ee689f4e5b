//! How the bytes of a chunk lie on servers: whole copies, or the parts of an erasure code.

use mooseng_types::{ChunkId, FsError, Part, ServerId};

/// Where a chunk is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Each of these has a whole copy; in chain order.
    Copies(Vec<ServerId>),
    /// Each has a part. Nobody makes such a chunk yet.
    Striped(Stripe),
}

/// A chunk in parts, any `k` of which are enough to read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stripe {
    k: u8,
    parts: Vec<ServerId>,
}

impl Stripe {
    /// `k` data parts and `m` parity parts, on as many servers: the part with index i + 1 is on `parts[i]`. `None` if there is
    /// no such code.
    #[must_use]
    pub fn new(k: u8, m: u8, parts: Vec<ServerId>) -> Option<Self> {
        let known = (1..=Part::DATA_MAX).contains(&k) && m <= Part::PARITY_MAX;
        (known && parts.len() == usize::from(k) + usize::from(m)).then_some(Self { k, parts })
    }

    /// Data parts.
    #[must_use]
    pub fn k(&self) -> u8 {
        self.k
    }

    /// Parity parts.
    #[must_use]
    pub fn m(&self) -> u8 {
        (self.parts.len() - usize::from(self.k)) as u8
    }

    /// The servers of the parts, in the parts' order.
    #[must_use]
    pub fn servers(&self) -> &[ServerId] {
        &self.parts
    }
}

impl Layout {
    /// The servers with whole copies, for what knows nothing else: `EOPNOTSUPP` if the chunk is in parts.
    pub fn copies(&self) -> Result<&[ServerId], FsError> {
        match self {
            Self::Copies(servers) => Ok(servers),
            Self::Striped(_) => Err(FsError::NotSupported),
        }
    }

    /// What servers have of `chunk`, which lies like this.
    pub fn parts(&self, chunk: ChunkId) -> impl Iterator<Item = (ServerId, Part)> {
        let (servers, step) = match self {
            Self::Copies(servers) => (servers.as_slice(), 0),
            Self::Striped(stripe) => (stripe.servers(), 1),
        };
        servers.iter().scan(0, move |index, &server| {
            *index += step;
            Some((server, Part::new(chunk, *index)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: u32) -> Vec<ServerId> {
        (1..=count).map(ServerId::from_raw).collect()
    }

    #[test]
    fn a_stripe_has_data_parts_and_a_server_for_each_part() {
        let stripe = Stripe::new(4, 2, servers(6)).unwrap();
        assert_eq!((stripe.k(), stripe.m(), stripe.servers()), (4, 2, &servers(6)[..]));
        assert!(Stripe::new(1, 0, servers(1)).is_some() && Stripe::new(32, 16, servers(48)).is_some());
        for (k, m, count) in [(0, 2, 2), (33, 0, 33), (1, 17, 18), (4, 2, 5), (4, 2, 7)] {
            assert_eq!(Stripe::new(k, m, servers(count)), None, "{k} and {m} on {count}");
        }
    }

    #[test]
    fn copies_are_whole_and_parts_of_a_stripe_count_from_one() {
        let chunk = ChunkId::from_raw(7);
        let parts = |layout: &Layout| -> Vec<(u32, u8)> {
            layout.parts(chunk).map(|(server, part)| (server.raw(), part.index())).collect()
        };
        let copies = Layout::Copies(servers(300));
        assert_eq!(parts(&copies), (1..=300).map(|server| (server, 0)).collect::<Vec<_>>());
        assert_eq!(copies.copies(), Ok(&servers(300)[..]));
        let striped = Layout::Striped(Stripe::new(32, 16, servers(48)).unwrap());
        assert_eq!(parts(&striped), (1..=48).map(|index| (index.into(), index)).collect::<Vec<(u32, u8)>>());
        assert_eq!(striped.copies(), Err(FsError::NotSupported));
    }
}
