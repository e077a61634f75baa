//! Which execution environment takes the next invocation.
//!
//! A function has places for `function.environments` environments. An environment is taken from when an invocation is
//! offered to it until its runtime and extensions have asked for the next event, as on Lambda: a request that comes before
//! that gets another environment, and waits only when no place is left ("Understanding Lambda function scaling" in the
//! Lambda Developer Guide; Lambda itself would throttle it).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a function.
#[derive(Debug)]
pub(super) struct Pool {
    /// Free places, the one to be taken next at the end: an environment that was used last comes before others, and any
    /// environment before a place that has none.
    free: Mutex<Vec<usize>>,
    permits: Arc<Semaphore>,
}

/// One invocation's hold on a place; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Turn {
    pool: Arc<Pool>,
    place: usize,
    /// Whether the place has an environment that can take the next invocation.
    pub(super) warm: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// So many places, each for `each` invocations at a time.
    pub(super) fn new(places: usize, each: usize) -> Arc<Self> {
        let free: Vec<usize> = (0..places).rev().flat_map(|place| std::iter::repeat_n(place, each)).collect();
        Arc::new(Self { permits: Arc::new(Semaphore::new(free.len())), free: Mutex::new(free) })
    }

    /// Waits for a place, first come, first served. `None` never happens while the function lives.
    pub(super) async fn turn(self: &Arc<Self>) -> Option<Turn> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let place = self.free().pop()?;
        Some(Turn { pool: self.clone(), place, warm: false, _permit: permit })
    }

    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Which place, counted from 0.
    pub(super) fn place(&self) -> usize {
        self.place
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The permit goes only after this, so that whoever gets it finds the place.
        let mut free = self.pool.free();
        let at = if self.warm { free.len() } else { 0 };
        free.insert(at, self.place);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    async fn turn(pool: &Arc<Pool>) -> Turn {
        pool.turn().await.unwrap()
    }

    #[tokio::test]
    async fn the_environment_that_was_used_last_comes_first_and_a_place_without_one_last() {
        let pool = Pool::new(3, 1);
        let (mut first, mut second) = (turn(&pool).await, turn(&pool).await);
        assert_eq!((first.place(), second.place()), (0, 1));
        (first.warm, second.warm) = (true, true);
        drop(first);
        drop(second);
        let again = turn(&pool).await;
        assert_eq!(again.place(), 1);
        // Its environment has ended.
        drop(again);
        assert_eq!(turn(&pool).await.place(), 0);
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_until_one_is_given_back() {
        let pool = Pool::new(1, 2);
        let (first, second) = (turn(&pool).await, turn(&pool).await);
        assert_eq!((first.place(), second.place()), (0, 0), "two at a time");
        assert!(pool.turn().now_or_never().is_none());
        drop(second);
        assert_eq!(turn(&pool).await.place(), 0);
    }
}
