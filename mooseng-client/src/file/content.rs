//! What the masters have told of a file's content: attributes, content version, small content, places of chunks. Pure.
//!
//! The content version decides whether anything known is still true; times do not, because they can be set back and kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mooseng_types::{Attr, ChunkIndex, INLINE_MAX};

use crate::chunk::Located;

/// Located chunks kept per file: 256 GiB of it.
const LOCATED_MAX: usize = 4096;

/// Where the content of chunk 0 lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// In a chunk, or not known: a look at the masters will tell.
    Chunks,
    /// In the metadata; this is it, with zeros behind it up to the end of chunk 0.
    Inline(Bytes),
}

/// What the kernel may have of a file's pages when the file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Nothing is known of them.
    Unknown,
    /// They are those of the present content.
    Right,
    /// Somebody else has changed the content since.
    Old,
}

/// What a look at the masters has told of one chunk.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// It reads as zeros.
    Hole,
    /// These copies have it.
    Copies(Arc<Located>),
    /// The metadata has it.
    Here(Bytes),
}

/// What is known of the content.
#[derive(Debug)]
pub(super) struct Content {
    attr: Option<Attr>,
    /// When the attributes were told, by the client's count of such tellings.
    told: u64,
    layout: Layout,
    located: BTreeMap<ChunkIndex, Place>,
    /// Rises whenever what was located may be wrong.
    places: u64,
    cache_key: u64,
    /// Somebody else has changed the content since this was last taken.
    foreign: bool,
    /// The content version that the kernel's pages are of, since the file was last opened.
    pages: Option<u64>,
}

impl Content {
    pub(super) fn new(seed: u32) -> Self {
        Self {
            attr: None,
            told: 0,
            layout: Layout::Chunks,
            located: BTreeMap::new(),
            places: 0,
            cache_key: u64::from(seed) << 32,
            foreign: false,
            pages: None,
        }
    }

    pub(super) fn attr(&self) -> Option<Attr> {
        self.attr
    }

    pub(super) fn cache_key(&self) -> u64 {
        self.cache_key
    }

    /// The content is being changed here.
    pub(super) fn touch(&mut self) {
        self.cache_key += 1;
    }

    pub(super) fn inline(&self) -> Option<&Bytes> {
        match &self.layout {
            Layout::Inline(content) => Some(content),
            Layout::Chunks => None,
        }
    }

    /// Whether the metadata may be the place for what is written next.
    pub(super) fn may_be_inline(&self) -> bool {
        matches!(self.layout, Layout::Inline(_))
    }

    pub(super) fn set_layout(&mut self, layout: Layout) {
        self.layout = layout;
    }

    pub(super) fn located(&self, index: ChunkIndex) -> Option<&Place> {
        self.located.get(&index)
    }

    pub(super) fn places(&self) -> u64 {
        self.places
    }

    pub(super) fn forget_place(&mut self, index: ChunkIndex) {
        self.located.remove(&index);
        self.places += 1;
    }

    /// Nothing that was located counts any more, nor what a question under way will say.
    pub(super) fn forget_places(&mut self) {
        self.located.clear();
        self.places += 1;
    }

    /// Takes in where chunks are. `inline` is what the metadata has of chunk 0.
    pub(super) fn locate(
        &mut self,
        first: ChunkIndex,
        count: u32,
        chunks: Vec<Located>,
        inline: Option<Bytes>,
    ) {
        if self.located.len() >= LOCATED_MAX {
            self.located.clear();
        }
        for number in first.raw()..first.raw().saturating_add(count) {
            self.located.insert(ChunkIndex::from_raw(number), Place::Hole);
        }
        if let Some(content) = inline {
            self.located.insert(ChunkIndex::from_raw(0), Place::Here(content));
        }
        for chunk in chunks {
            self.located.insert(chunk.index, Place::Copies(Arc::new(chunk)));
        }
    }

    /// Takes in attributes that were told after `asked`. `mine`: they answer a change that was made here. Returns whether
    /// they count.
    pub(super) fn learn(&mut self, attr: Attr, asked: u64, told: u64, mine: bool) -> bool {
        let known = self.attr.map(|known| known.content_version);
        let newer = known.is_none_or(|known| attr.content_version > known);
        let older = known.is_some_and(|known| attr.content_version < known);
        if older || (!newer && !mine && self.told > asked) {
            return false;
        }
        let expected = known;
        let (known, same) = match expected {
            None => (false, false),
            Some(version) => {
                let next = attr.content_version == version.wrapping_add(1);
                (true, attr.content_version == version || (mine && next))
            }
        };
        if !same {
            self.forget_places();
            self.cache_key += 1;
            self.layout = if attr.size == 0 { Layout::Inline(Bytes::new()) } else { Layout::Chunks };
            self.foreign |= known;
        }
        if mine && same && self.pages == expected {
            self.pages = Some(attr.content_version);
        }
        self.attr = Some(attr);
        self.told = told;
        true
    }

    /// A program opens the file. Tells what the kernel's pages are, and takes them for dropped if they are not right.
    pub(super) fn opened(&mut self, remembered: Option<u64>) -> Pages {
        let now = self.attr.map(|attr| attr.content_version);
        let before = self.pages.or(remembered);
        self.pages = now;
        match before {
            None => Pages::Unknown,
            Some(_) if before == now => Pages::Right,
            Some(_) => Pages::Old,
        }
    }

    pub(super) fn pages(&self) -> Option<u64> {
        self.pages
    }

    /// The masters have told that the content is in the metadata.
    pub(super) fn learn_inline(&mut self, content: Bytes) {
        self.layout = Layout::Inline(content);
    }

    /// A small file's content after a write here, if nobody else has changed it meanwhile.
    pub(super) fn written_inline(&mut self, offset: usize, data: &[u8]) {
        let Layout::Inline(before) = &self.layout else { return };
        let end = offset + data.len();
        let mut content = BytesMut::zeroed(before.len().max(end));
        content[..before.len()].copy_from_slice(before);
        content[offset..end].copy_from_slice(data);
        self.layout = Layout::Inline(content.freeze());
        debug_assert!(end as u64 <= INLINE_MAX, "more than the metadata takes");
    }

    /// Whether somebody else has changed the content since the last call.
    pub(super) fn take_foreign(&mut self) -> bool {
        std::mem::take(&mut self.foreign)
    }
}
