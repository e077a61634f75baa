//! Items of one kind in order of arrival, as they came: blocks of bytes with rows of the index, decoded when somebody asks.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    mem::{size_of, size_of_val},
    ops::Index as Indexed,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::{
    capture::index::{Group, Item, Row, Senders, part},
    telemetry::{Arrival, TraceId},
};

/// Items that stay decoded between two arrivals. Beyond that all are forgotten, and decoded again for who asks again: an
/// item takes several times its bytes once it is decoded.
const KEPT_OPEN: usize = 100_000;

/// What came at once: the items of an export request, or the records of a line.
struct Block<T: Item> {
    /// The position of the first item.
    first: u64,
    arrival: Arrival,
    /// What it takes beside the request that it came in.
    bytes: usize,
    rows: Box<[T::Row]>,
    content: Content<T>,
}

enum Content<T> {
    /// As received.
    Wire { wire: Bytes, groups: Box<[Group]>, open: OnceLock<Box<Open<T>>> },
    /// It came as values.
    Values(Box<[Arc<T>]>),
}

/// What is decoded of a block.
struct Open<T> {
    senders: Senders,
    items: Box<[OnceLock<Arc<T>>]>,
}

/// The items of one trace, as the low halves of the positions of the first and the last.
#[derive(Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
}

/// Everything of one kind that is kept.
pub(super) struct Shelf<T: Item> {
    blocks: VecDeque<Block<T>>,
    /// Positions of the first item that is kept, and of the next one to come.
    begin: u64,
    end: u64,
    /// Looked up for each run of spans that comes. Ids are whatever a sender likes, so the hash has a key of this process.
    traces: HashMap<[u8; 16], Chain, RandomState>,
    /// How many items are decoded.
    open: AtomicUsize,
}

impl<T: Item> Default for Shelf<T> {
    fn default() -> Self {
        Self { blocks: VecDeque::new(), begin: 0, end: 0, traces: HashMap::default(), open: AtomicUsize::new(0) }
    }
}

impl<T: Item> fmt::Debug for Shelf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("begin", &self.begin).field("end", &self.end).finish()
    }
}

impl<T: Item> Block<T> {
    fn end(&self) -> u64 {
        self.first + self.rows.len() as u64
    }
}

impl<T: Item> Shelf<T> {
    /// Adds what an export request holds, as it was received. Returns how many bytes that takes, `extra` included and `wire`
    /// not.
    pub fn push_wire(
        &mut self,
        arrival: Arrival,
        extra: usize,
        wire: Bytes,
        groups: Box<[Group]>,
        rows: Vec<T::Row>,
    ) -> usize {
        let bytes = extra + size_of::<Block<T>>() + size_of_val(&*groups) + size_of_val(&*rows);
        self.push(arrival, bytes, rows.into(), Content::Wire { wire, groups, open: OnceLock::new() })
    }

    /// Adds what came as values, which take so many bytes and have their stamps.
    pub fn push_values(&mut self, arrival: Arrival, bytes: usize, values: Vec<T>) -> usize {
        let rows: Box<[T::Row]> = values.iter().map(T::row).collect();
        let bytes = bytes + size_of::<Block<T>>() + size_of_val(&*rows);
        self.push(arrival, bytes, rows, Content::Values(values.into_iter().map(Arc::new).collect()))
    }

    fn push(&mut self, arrival: Arrival, bytes: usize, mut rows: Box<[T::Row]>, content: Content<T>) -> usize {
        if *self.open.get_mut() > KEPT_OPEN {
            self.close();
        }
        let first = self.end;
        let position = |at: usize| (first + at as u64) as u32;
        let mut at = 0;
        while at < rows.len() {
            // What comes one behind the other is mostly of one trace, which is then looked up once.
            let (run, trace) = (at, rows[at].trace());
            at += 1;
            let Some(trace) = trace else { continue };
            while at < rows.len() && rows[at].trace() == Some(trace) {
                rows[at - 1].set_next(position(at));
                at += 1;
            }
            let before = match self.traces.entry(trace) {
                Entry::Occupied(mut chain) => std::mem::replace(&mut chain.get_mut().last, position(at - 1)),
                Entry::Vacant(free) => {
                    free.insert(Chain { first: position(run), last: position(at - 1) });
                    continue;
                }
            };
            // It is in this block or in an earlier one.
            let before = whole(self.begin, before);
            match usize::try_from(before.wrapping_sub(first)) {
                Ok(before) if before < run => rows[before].set_next(position(run)),
                _ => {
                    let block = self.block_of(before);
                    if let Some(block) = self.blocks.get_mut(block) {
                        block.rows[(before - block.first) as usize].set_next(position(run));
                    }
                }
            }
        }
        self.end += rows.len() as u64;
        self.blocks.push_back(Block { first, arrival, bytes, rows, content });
        bytes
    }

    /// Forgets what is decoded.
    fn close(&mut self) {
        for block in &mut self.blocks {
            if let Content::Wire { open, .. } = &mut block.content {
                open.take();
            }
        }
        self.open = AtomicUsize::new(0);
    }

    /// When the first block came.
    pub fn oldest(&self) -> Option<Arrival> {
        self.blocks.front().map(|block| block.arrival)
    }

    /// Drops what came then, if it is the oldest; counts it in `dropped`, and returns what it took.
    pub fn drop_at(&mut self, oldest: Arrival, dropped: &mut u64) -> usize {
        if self.oldest() != Some(oldest) {
            return 0;
        }
        let Some(block) = self.blocks.pop_front() else { return 0 };
        for (row, position) in block.rows.iter().zip(block.first..) {
            let Some(trace) = row.trace() else { continue };
            // It is the first of its trace: everything before it was dropped.
            match self.traces.get_mut(&trace) {
                Some(chain) if chain.last == position as u32 => drop(self.traces.remove(&trace)),
                Some(chain) => chain.first = row.next(),
                None => {}
            }
        }
        self.begin = block.end();
        if let Content::Wire { open, .. } = &block.content
            && let Some(open) = open.get()
        {
            *self.open.get_mut() -= open.items.iter().filter(|item| item.get().is_some()).count();
        }
        *dropped += block.rows.len() as u64;
        block.bytes
    }

    /// All items.
    pub fn items(&self) -> Items<'_, T> {
        Items { shelf: self, front: self.begin, back: self.end, first: 0, last: self.blocks.len() }
    }

    /// The items of one trace, in order of arrival, with what is known of each without decoding it.
    pub fn of(&self, trace: TraceId) -> impl Iterator<Item = Found<'_, T>> {
        let chain = self.traces.get(trace.as_bytes());
        let mut at = chain.map(|chain| whole(self.begin, chain.first));
        let last = chain.map(|chain| whole(self.begin, chain.last));
        std::iter::from_fn(move || {
            let position = at?;
            let block = &self.blocks[self.block_of(position)];
            let row = &block.rows[(position - block.first) as usize];
            at = (Some(position) != last).then(|| whole(self.begin, row.next()));
            Some(Found { shelf: self, block, position, row })
        })
    }

    /// The block with this position.
    fn block_of(&self, position: u64) -> usize {
        self.blocks.partition_point(|block| block.end() <= position)
    }

    fn open<'a>(&'a self, block: &'a Block<T>, position: u64) -> &'a Arc<T> {
        let at = (position - block.first) as usize;
        let (wire, groups, open) = match &block.content {
            Content::Values(values) => return &values[at],
            Content::Wire { wire, groups, open } => (wire, groups, open),
        };
        let Open { senders, items } = &**open.get_or_init(|| {
            let items = block.rows.iter().map(|_| OnceLock::new()).collect();
            Box::new(Open { senders: Senders::new(groups), items })
        });
        items[at].get_or_init(|| {
            self.open.fetch_add(1, Ordering::Relaxed);
            let (offset, length, group) = T::place(&block.rows[at]);
            let (resource, scope) = senders.of(wire, groups, group);
            let mut item = T::open(part(wire, (offset, length)), resource, scope);
            item.stamp(block.arrival);
            Arc::new(item)
        })
    }
}

/// A position from its low half: positions that are kept at the same time are less than 2^32 apart.
fn whole(begin: u64, low: u32) -> u64 {
    begin + u64::from(low.wrapping_sub(begin as u32))
}

/// An item of a trace that is decoded only when it is asked for.
pub(super) struct Found<'a, T: Item> {
    shelf: &'a Shelf<T>,
    block: &'a Block<T>,
    position: u64,
    row: &'a T::Row,
}

impl<'a, T: Item> Found<'a, T> {
    /// What is known of it anyway.
    pub fn row(&self) -> &'a T::Row {
        self.row
    }

    /// The item.
    pub fn open(&self) -> &'a Arc<T> {
        self.shelf.open(self.block, self.position)
    }
}

/// Items in order of arrival. Each is decoded when the iteration comes to it.
pub struct Items<'a, T: Item> {
    shelf: &'a Shelf<T>,
    front: u64,
    back: u64,
    /// Blocks at or before the one with `front`, and behind the one with `back - 1`.
    first: usize,
    last: usize,
}

impl<T: Item> Clone for Items<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Item> Copy for Items<'_, T> {}

impl<T: Item> fmt::Debug for Items<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl<'a, T: Item> Items<'a, T> {
    /// These, as a slice has it.
    pub fn iter(&self) -> Self {
        *self
    }

    /// All of them.
    pub fn to_vec(&self) -> Vec<Arc<T>> {
        self.cloned().collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.front == self.back
    }

    /// The one at `index`.
    pub fn get(&self, index: usize) -> Option<&'a Arc<T>> {
        let position = self.front.checked_add(index as u64).filter(|&position| position < self.back)?;
        Some(self.shelf.open(&self.shelf.blocks[self.shelf.block_of(position)], position))
    }

    /// The first one.
    pub fn first(&self) -> Option<&'a Arc<T>> {
        self.get(0)
    }

    /// How many have come since the beginning, those included that were dropped: a position that stays what it is.
    pub fn end(&self) -> usize {
        self.back as usize
    }

    /// Those that have come since [`end`](Self::end) was `position`, as far as they are kept.
    pub fn from(mut self, position: usize) -> Self {
        self.front = (position as u64).clamp(self.front, self.back);
        self.first = self.shelf.block_of(self.front);
        self
    }

    /// Those that arrived at `seq` or later.
    pub fn since(self, seq: u64) -> Self {
        let block = self.shelf.blocks.partition_point(|block| block.arrival.seq < seq);
        let position = self.shelf.blocks.get(block).map_or(self.back, |block| block.first);
        self.from(position as usize)
    }

    /// Those whose rows `wanted` accepts; the others are not decoded.
    pub fn only(mut self, wanted: impl Fn(&T::Row) -> bool) -> impl Iterator<Item = &'a Arc<T>> {
        std::iter::from_fn(move || {
            while let Some((block, position)) = self.step() {
                if wanted(&block.rows[(position - block.first) as usize]) {
                    return Some(self.shelf.open(block, position));
                }
            }
            None
        })
    }

    #[inline]
    fn step(&mut self) -> Option<(&'a Block<T>, u64)> {
        if self.front >= self.back {
            return None;
        }
        let position = self.front;
        // Blocks may be empty.
        while self.shelf.blocks[self.first].end() <= position {
            self.first += 1;
        }
        self.front += 1;
        Some((&self.shelf.blocks[self.first], position))
    }
}

impl<'a, T: Item> Iterator for Items<'a, T> {
    type Item = &'a Arc<T>;

    fn next(&mut self) -> Option<&'a Arc<T>> {
        let (block, position) = self.step()?;
        Some(self.shelf.open(block, position))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.back - self.front) as usize;
        (left, Some(left))
    }

    fn count(self) -> usize {
        self.len()
    }

    fn nth(&mut self, n: usize) -> Option<&'a Arc<T>> {
        // Skipping decodes nothing.
        self.front = self.front.saturating_add(n as u64).min(self.back);
        self.first = self.first.max(self.shelf.block_of(self.front).min(self.shelf.blocks.len()));
        self.next()
    }
}

impl<T: Item> ExactSizeIterator for Items<'_, T> {}

impl<T: Item> DoubleEndedIterator for Items<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back -= 1;
        while self.last == self.shelf.blocks.len() || self.shelf.blocks[self.last].first > self.back {
            self.last -= 1;
        }
        Some(self.shelf.open(&self.shelf.blocks[self.last], self.back))
    }
}

impl<'a, T: Item> Indexed<usize> for Items<'a, T> {
    type Output = Arc<T>;

    fn index(&self, index: usize) -> &Arc<T> {
        self.get(index).unwrap_or_else(|| panic!("there is no item {index} of {}", self.len()))
    }
}
