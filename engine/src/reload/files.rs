//! Files that others replace: owns how a file is told from the one before, and when it counts as whole. Never what is in it.
//!
//! Files are looked at now and then, not watched: Kubernetes replaces them by swapping a symbolic link above them, others by
//! renaming or writing in place, some file systems tell nobody; a look finds them all, and costs a system call each.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file as far as it can be told from others; `None` where there is none.
pub(crate) type Seen = Option<(u64, u64, i64, i64, u64)>;

/// What is behind a path.
pub(crate) fn see(path: &Path) -> Seen {
    let look = |meta: Metadata| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
    std::fs::metadata(path).ok().map(look)
}

/// What was seen of some files that are read together.
pub(crate) struct Watch {
    /// When they were read.
    known: Vec<Seen>,
    last: Vec<Seen>,
}

impl Watch {
    pub(crate) fn new(known: Vec<Seen>) -> Self {
        Watch { last: known.clone(), known }
    }

    /// Whether they are to be read: they are others than when they were read last, and have stayed so for a look, because
    /// nobody writes two files at once, or a large one.
    pub(crate) fn is_news(&mut self, seen: Vec<Seen>) -> bool {
        let is_news = seen != self.known && seen == self.last;
        if is_news {
            self.known.clone_from(&seen);
        }
        self.last = seen;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_stayed_for_a_look_is_news_once() {
        let seen = |size: u64| vec![Some((1, 1, 1, 1, size)), None];
        let mut watch = Watch::new(seen(1));
        let news: Vec<bool> =
            [1, 2, 3, 3, 3, 1, 4, 3].into_iter().map(|size| watch.is_news(seen(size))).collect();
        assert_eq!(news, [false, false, false, true, false, false, false, false]);
    }
}
