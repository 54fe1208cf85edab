//! The start of all shards together: owns the wait of each for the others. A shard goes on when every shard has made what
//! it needs of the kernel; when one could not, all of them end, so that no part of a gateway ever listens. It never knows
//! what is made.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What a shard tells: how it is told to go on, or why it cannot.
type Report<E> = Result<SyncSender<()>, E>;

/// The side of whoever starts the shards.
pub(super) struct Muster<E> {
    shards: NonZeroUsize,
    reports: Receiver<Report<E>>,
}

/// The side of a shard: each has a clone, and the last is dropped at the latest when all of them have reported.
pub(super) struct Place<E>(SyncSender<Report<E>>);

// Not derived, because that would ask for errors that can be cloned.
impl<E> Clone for Place<E> {
    fn clone(&self) -> Self {
        Place(self.0.clone())
    }
}

/// Why not all shards go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing<E> {
    /// A shard could not make what it needs.
    Refused(E),
    /// A shard's thread ended without a word.
    Absent,
}

impl<E> Muster<E> {
    pub(super) fn new(shards: NonZeroUsize) -> (Self, Place<E>) {
        let (place, reports) = sync_channel(shards.get());
        (Muster { shards, reports }, Place(place))
    }

    /// Waits for all shards and has them go on. The caller holds no [`Place`] any more.
    ///
    /// # Errors
    /// What is missing; all shards then end.
    pub(super) fn start(self) -> Result<(), Missing<E>> {
        let mut present = Vec::with_capacity(self.shards.get());
        for report in &self.reports {
            present.push(report.map_err(Missing::Refused)?);
        }
        if present.len() < self.shards.get() {
            return Err(Missing::Absent);
        }
        for shard in present {
            // It waits for nothing else.
            let _ = shard.send(());
        }
        Ok(())
    }
}

impl<E> Place<E> {
    /// On the shard's thread: what `make` gives, once all shards have theirs; none when the shard is to end.
    pub(super) fn take<T>(self, make: impl FnOnce() -> Result<T, E>) -> Option<T> {
        // Nobody listens any more where another shard is missing; `told` then ends at once.
        match make() {
            Ok(made) => {
                let (go_on, told) = sync_channel(1);
                let _ = self.0.send(Ok(go_on));
                drop(self);
                told.recv().ok().map(|()| made)
            }
            Err(why) => {
                let _ = self.0.send(Err(why));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts three shards, of which each makes what `make` gives it, or ends without a word; says how the start went and
    /// which shards go on.
    fn muster(make: fn(usize) -> Option<Result<usize, String>>) -> (Result<(), Missing<String>>, Vec<usize>) {
        let (muster, place) = Muster::new(NonZeroUsize::new(3).unwrap());
        let shards: Vec<_> = (0..3)
            .map(|index| {
                let place = place.clone();
                std::thread::spawn(move || make(index).and_then(|made| place.take(|| made)))
            })
            .collect();
        drop(place);
        let started = muster.start();
        (started, shards.into_iter().filter_map(|shard| shard.join().unwrap()).collect())
    }

    #[test]
    fn all_go_on_when_all_are_there() {
        assert_eq!(muster(|index| Some(Ok(index))), (Ok(()), vec![0, 1, 2]));
    }

    #[test]
    fn none_goes_on_when_one_is_refused() {
        let (started, going) =
            muster(|index| Some(if index == 2 { Err("no memory".to_owned()) } else { Ok(index) }));
        assert_eq!((started, going), (Err(Missing::Refused("no memory".to_owned())), vec![]));
    }

    #[test]
    fn none_goes_on_when_one_ends_without_a_word() {
        let (started, going) = muster(|index| (index != 0).then_some(Ok(index)));
        assert_eq!((started, going), (Err(Missing::Absent), vec![]));
    }

    #[test]
    fn none_goes_on_when_nobody_starts_them() {
        let (muster, place) = Muster::<String>::new(NonZeroUsize::MIN);
        drop(muster);
        assert_eq!(place.take(|| Ok(7)), None);
    }
}
