//! From an image back to a tree.

use super::{ChunkKind, Tree, TreeOptions};

/// Why an image cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not the image of a tree.
    #[error("{0}")]
    Damaged(String),
}

/// Takes the chunks of an image, from several threads at once, in any order after the header.
#[derive(Debug)]
pub struct Loader {}

impl Loader {
    /// An empty loader.
    #[must_use]
    pub fn new(options: TreeOptions) -> Loader {
        unimplemented!()
    }

    /// Takes one chunk. The header chunk must have been taken before any other.
    pub fn chunk(&self, kind: ChunkKind, bytes: &[u8]) -> Result<(), ImageError> {
        unimplemented!()
    }

    /// The tree, if the image is whole and consistent.
    pub fn finish(self) -> Result<Tree, ImageError> {
        unimplemented!()
    }
}
