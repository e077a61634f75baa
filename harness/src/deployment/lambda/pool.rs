//! Which execution environment takes the next invocation.
//!
//! A function has places for `function.environments` environments. An environment is taken from when an invocation is
//! handed to it until its runtime and extensions have asked for the next event, as on Lambda: a request that comes before
//! that gets another environment, and waits only when no place is left ("Understanding Lambda function scaling" in the
//! Lambda Developer Guide; Lambda itself would throttle it).
//!
//! An invocation stands in line itself, not its caller: a place that is given back has the next one at once, without waking
//! anybody who would have to bring it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::mpsc;

use super::environment::{Command, Invoke};

/// The places of a function.
#[derive(Debug)]
pub(super) struct Pool {
    line: Mutex<Line>,
    /// Where each place takes its commands.
    places: Vec<mpsc::UnboundedSender<Command>>,
}

#[derive(Debug)]
struct Line {
    /// Free places, the one to be taken next at the end: an environment that was used last comes before others, and any
    /// environment before a place that has none.
    free: Vec<usize>,
    /// First come, first served; empty while a place is free.
    waiting: VecDeque<Box<Invoke>>,
}

/// One of the places, as the task of its environment knows it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pool: Weak<Pool>,
    number: usize,
}

/// One invocation's hold on a place; dropping it gives the place to the next in line.
#[derive(Debug)]
pub(super) struct Turn {
    place: Place,
    /// Whether the place has an environment that can take the next invocation.
    pub(super) warm: bool,
}

impl Pool {
    /// These places, each for `each` invocations at a time.
    pub(super) fn new(places: Vec<mpsc::UnboundedSender<Command>>, each: usize) -> Arc<Self> {
        let free = (0..places.len()).rev().flat_map(|place| std::iter::repeat_n(place, each)).collect();
        Arc::new(Self { line: Mutex::new(Line { free, waiting: VecDeque::new() }), places })
    }

    /// The place of this number.
    pub(super) fn place(self: &Arc<Self>, number: usize) -> Place {
        Place { pool: Arc::downgrade(self), number }
    }

    /// Hands an invocation to the place that is next, or lets it wait for one. It is dropped where the place's task has
    /// ended, which its caller notices.
    pub(super) fn submit(&self, invoke: Box<Invoke>) {
        let mut line = self.line();
        match line.free.pop() {
            None => line.waiting.push_back(invoke),
            Some(place) => {
                if !self.hand(place, invoke) {
                    line.free.insert(0, place);
                }
            }
        }
    }

    /// Asks the task of each place for something.
    pub(super) fn places(&self) -> &[mpsc::UnboundedSender<Command>] {
        &self.places
    }

    fn hand(&self, place: usize, invoke: Box<Invoke>) -> bool {
        self.places[place].send(Command::Invoke(invoke)).is_ok()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// An invocation that was handed to this place takes it.
    pub(super) fn turn(&self) -> Turn {
        Turn { place: self.clone(), warm: false }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(pool) = self.place.pool.upgrade() else { return };
        let number = self.place.number;
        let mut line = pool.line();
        while let Some(next) = line.waiting.pop_front() {
            if pool.hand(number, next) {
                return;
            }
        }
        let at = if self.warm { line.free.len() } else { 0 };
        line.free.insert(at, number);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        oneshot::{self, error::TryRecvError},
    };

    use super::{super::environment::Outcome, *};
    use crate::{deployment::SiteError, stimulus::Identity};

    fn pool(places: usize, each: usize) -> (Arc<Pool>, Vec<UnboundedReceiver<Command>>) {
        let (senders, receivers) = (0..places).map(|_| unbounded_channel()).unzip();
        (Pool::new(senders, each), receivers)
    }

    fn invoke(id: &str) -> (Box<Invoke>, oneshot::Receiver<Result<Outcome, SiteError>>) {
        let (reply, told) = oneshot::channel();
        let invoke = Invoke {
            request_id: id.to_owned(),
            delivery: String::new(),
            event: Bytes::new(),
            trace_header: None,
            identity: Identity::default(),
            taken: Arc::default(),
            begun: oneshot::channel().0,
            reply,
        };
        (Box::new(invoke), told)
    }

    /// Submits an invocation of this id.
    fn submit(pool: &Pool, id: &str) {
        pool.submit(invoke(id).0);
    }

    /// The place that has this invocation now, and its turn there.
    fn taken(pool: &Arc<Pool>, receivers: &mut [UnboundedReceiver<Command>], id: &str) -> Option<(usize, Turn)> {
        receivers.iter_mut().enumerate().find_map(|(number, receiver)| match receiver.try_recv() {
            Ok(Command::Invoke(invoke)) if invoke.request_id == id => Some((number, pool.place(number).turn())),
            _ => None,
        })
    }

    #[test]
    fn the_environment_that_was_used_last_comes_first_and_a_place_without_one_last() {
        let (pool, mut receivers) = pool(3, 1);
        let mut take = |id: &str| {
            submit(&pool, id);
            taken(&pool, &mut receivers, id).unwrap()
        };
        let ((first, mut a), (second, mut b)) = (take("a"), take("b"));
        assert_eq!((first, second), (0, 1));
        (a.warm, b.warm) = (true, true);
        drop(a);
        drop(b);
        let (again, ended) = take("c");
        assert_eq!(again, 1);
        // Its environment has ended.
        drop(ended);
        assert_eq!(take("d").0, 0);
    }

    #[test]
    fn who_finds_no_place_waits_until_one_is_given_back_and_is_served_in_order() {
        let (pool, mut receivers) = pool(1, 2);
        ["a", "b", "c", "d"].into_iter().for_each(|id| submit(&pool, id));
        let (_, first) = taken(&pool, &mut receivers, "a").unwrap();
        let (_, _second) = taken(&pool, &mut receivers, "b").unwrap();
        assert!(taken(&pool, &mut receivers, "c").is_none(), "two at a time");
        drop(first);
        let (_, _third) = taken(&pool, &mut receivers, "c").unwrap();
        assert!(taken(&pool, &mut receivers, "d").is_none());
    }

    #[test]
    fn who_waits_for_a_place_whose_task_has_ended_is_dropped_and_not_left_waiting() {
        let (pool, mut receivers) = pool(1, 1);
        submit(&pool, "a");
        let (_, turn) = taken(&pool, &mut receivers, "a").unwrap();
        let (waiting, mut told) = invoke("b");
        pool.submit(waiting);
        assert_eq!(told.try_recv().unwrap_err(), TryRecvError::Empty);
        drop(receivers);
        drop(turn);
        assert_eq!(told.try_recv().unwrap_err(), TryRecvError::Closed);
        let (late, mut told) = invoke("c");
        pool.submit(late);
        assert_eq!(told.try_recv().unwrap_err(), TryRecvError::Closed);
    }
}
