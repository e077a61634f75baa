//! The spans of one request as a tree.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use crate::telemetry::{LogRecord, Span, SpanId, StatusCode, TraceId};

/// The spans of one request as a tree, with their log records.
///
/// Roots are the spans that hang on nothing, on a known remote parent, or on a span that never came (then they are
/// orphans as well). Siblings stand in the order of their start times.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    index: HashMap<(TraceId, SpanId), usize>,
    /// Spans whose parent was neither received nor a known remote parent, in the order of their start times.
    pub orphans: Vec<Orphan>,
    /// Spans that came more than once.
    pub duplicates: Vec<Duplicate>,
    /// Spans that are their own ancestors, one entry a cycle; the first of each stands among the roots.
    pub cycles: Vec<Vec<SpanId>>,
}

/// A span at its place in the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// The span.
    pub span: Arc<Span>,
    /// Position of the parent in [`Trace::nodes`]; `None` for a root.
    pub parent: Option<usize>,
    /// Positions of the children, by start time.
    pub children: Vec<usize>,
    /// Records that name this span, in order of arrival.
    pub logs: Vec<Arc<LogRecord>>,
}

/// A span whose parent is missing.
#[derive(Debug, Clone)]
pub struct Orphan {
    /// The span.
    pub span: Arc<Span>,
    /// The parent that it names.
    pub missing_parent: SpanId,
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { span, missing_parent } = self;
        write!(f, "{} {:?} ({}) hangs on {missing_parent}, which was not received", span.kind, span.name, span.span_id)
    }
}

/// A span id that came more than once in one trace.
#[derive(Debug, Clone)]
pub struct Duplicate {
    /// The span that is in the tree: the first that came.
    pub first: Arc<Span>,
    /// The one that came later.
    pub again: Arc<Span>,
    /// Whether both say the same: a span that was exported twice. Otherwise two spans share an id.
    pub identical: bool,
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, again, identical } = self;
        if *identical {
            write!(f, "{} {:?} ({}) was exported twice", first.kind, first.name, first.span_id)
        } else {
            write!(
                f,
                "two spans have the id {}: {} {:?} and {} {:?}",
                first.span_id, first.kind, first.name, again.kind, again.name
            )
        }
    }
}

impl Trace {
    /// Builds the tree of `spans`. Spans of several traces may be given (a request that was split); parents are looked
    /// for in the span's own trace.
    pub fn new(spans: impl IntoIterator<Item = Arc<Span>>, remote_parents: &[SpanId]) -> Self {
        let mut trace = Self::default();
        for span in spans {
            let key = (span.trace_id, span.span_id);
            if let Some(&at) = trace.index.get(&key) {
                let first = trace.nodes[at].span.clone();
                let identical = Span { arrival: span.arrival, ..(*first).clone() } == *span;
                trace.duplicates.push(Duplicate { first, again: span, identical });
                continue;
            }
            trace.index.insert(key, trace.nodes.len());
            trace.nodes.push(Node { span, parent: None, children: Vec::new(), logs: Vec::new() });
        }
        let mut order: Vec<usize> = (0..trace.nodes.len()).collect();
        order.sort_by_key(|&at| (trace.nodes[at].span.start_unix_nano, at));
        for &at in &order {
            let span = trace.nodes[at].span.clone();
            let Some(parent) = span.parent_span_id else {
                trace.roots.push(at);
                continue;
            };
            match trace.index.get(&(span.trace_id, parent)) {
                Some(&above) if above != at => {
                    trace.nodes[at].parent = Some(above);
                    trace.nodes[above].children.push(at);
                }
                Some(_) => {
                    trace.cycles.push(vec![span.span_id]);
                    trace.roots.push(at);
                }
                None => {
                    if !remote_parents.contains(&parent) {
                        trace.orphans.push(Orphan { span, missing_parent: parent });
                    }
                    trace.roots.push(at);
                }
            }
        }
        trace.cut_cycles(&order);
        trace
    }

    /// What no root leads to hangs on itself: cut each such cycle at its earliest span.
    fn cut_cycles(&mut self, order: &[usize]) {
        let mut reached: HashSet<usize> = self.below(self.roots.clone()).into_iter().collect();
        for &start in order {
            if reached.contains(&start) {
                continue;
            }
            // Upwards from here the way ends in the cycle; the first span met twice is in it.
            let mut seen = HashSet::new();
            let mut at = start;
            while seen.insert(at) {
                at = self.nodes[at].parent.unwrap_or(at);
            }
            let mut members = vec![at];
            let mut next = self.nodes[at].parent.unwrap_or(at);
            while next != at {
                members.push(next);
                next = self.nodes[next].parent.unwrap_or(at);
            }
            let cut = members.iter().copied().min_by_key(|&at| self.nodes[at].span.start_unix_nano).unwrap_or(at);
            self.cycles.push(members.iter().map(|&at| self.nodes[at].span.span_id).collect());
            if let Some(parent) = self.nodes[cut].parent.take() {
                self.nodes[parent].children.retain(|&child| child != cut);
            }
            self.roots.push(cut);
            reached.extend(self.below(vec![cut]));
        }
    }

    fn below(&self, mut pending: Vec<usize>) -> Vec<usize> {
        let mut found = Vec::new();
        pending.reverse();
        while let Some(at) = pending.pop() {
            found.push(at);
            pending.extend(self.nodes[at].children.iter().rev());
        }
        found
    }

    /// Attaches a record to the span that it names; `false` when there is none.
    pub fn attach(&mut self, record: Arc<LogRecord>) -> bool {
        let named = record.named();
        let Some(&at) = named.and_then(|key| self.index.get(&key)) else { return false };
        self.nodes[at].logs.push(record);
        true
    }

    /// Every span with its place.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Positions of the roots, orphans included.
    pub fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// Spans from the roots down, parents before their children.
    pub fn spans(&self) -> impl Iterator<Item = &Arc<Span>> {
        self.below(self.roots.clone()).into_iter().map(|at| &self.nodes[at].span)
    }

    /// How many spans there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The position of a span.
    pub fn position(&self, trace_id: TraceId, span_id: SpanId) -> Option<usize> {
        self.index.get(&(trace_id, span_id)).copied()
    }

    /// The root above a span, or the span itself.
    pub fn root_of(&self, mut at: usize) -> usize {
        while let Some(parent) = self.nodes[at].parent {
            at = parent;
        }
        at
    }

    /// Spans above a span, nearest first.
    pub fn ancestors(&self, at: usize) -> impl Iterator<Item = &Arc<Span>> {
        std::iter::successors(self.nodes[at].parent, |&at| self.nodes[at].parent).map(|at| &self.nodes[at].span)
    }

    /// The tree from the top to the bottom, a row a span, for whoever draws it.
    pub fn rows(&self) -> Vec<Row<'_>> {
        self.rows_of(&self.roots, 0, "", true)
    }

    /// The same of these spans and what hangs on them, drawn at `depth` behind `lead`; `last` says whether no sibling
    /// comes behind them.
    pub(super) fn rows_of(&self, tops: &[usize], depth: usize, lead: &str, last: bool) -> Vec<Row<'_>> {
        let mut rows = Vec::with_capacity(self.nodes.len());
        let mut pending: Vec<(usize, usize, bool, String)> = Vec::new();
        for (i, &top) in tops.iter().enumerate().rev() {
            pending.push((top, depth, last && i + 1 == tops.len(), lead.to_owned()));
        }
        while let Some((at, depth, last, lead)) = pending.pop() {
            let node = &self.nodes[at];
            let (branch, below) = match (depth, last) {
                (0, _) => (String::new(), String::new()),
                (_, true) => (format!("{lead}└─ "), format!("{lead}   ")),
                (_, false) => (format!("{lead}├─ "), format!("{lead}│  ")),
            };
            let orphan = self.orphans.iter().any(|orphan| Arc::ptr_eq(&orphan.span, &node.span));
            rows.push(Row { depth, branch, node, orphan });
            let count = node.children.len();
            for (i, &child) in node.children.iter().enumerate().rev() {
                pending.push((child, depth + 1, i + 1 == count, below.clone()));
            }
        }
        rows
    }
}

/// One span of a drawn tree.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// 0 for a root.
    pub depth: usize,
    /// The lines that lead to it: `│  └─ `.
    pub branch: String,
    /// The span with its records.
    pub node: &'a Node,
    /// Whether its parent is missing.
    pub orphan: bool,
}

impl Row<'_> {
    /// Time between start and end; zero for a span that ended before it started.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.node.span.end_unix_nano.saturating_sub(self.node.span.start_unix_nano))
    }
}

/// `SERVER GET /files/  Error  1.20 ms  3 logs`, without the lines that lead to it.
impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = &self.node.span;
        write!(f, "{} {}", span.kind, span.name)?;
        if span.status.code != StatusCode::Unset {
            write!(f, "  {}", span.status.code)?;
        }
        write!(f, "  {:.2} ms", self.duration().as_secs_f64() * 1e3)?;
        match self.node.logs.len() {
            0 => {}
            1 => f.write_str("  1 log record")?,
            logs => write!(f, "  {logs} log records")?,
        }
        if let (true, Some(parent)) = (self.orphan, span.parent_span_id) {
            write!(f, "  orphan: parent {parent} was not received")?;
        }
        Ok(())
    }
}

/// The tree as text, a line a span.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows().iter().try_for_each(|row| writeln!(f, "{}{row}", row.branch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{correlation::samples::*, telemetry::SpanKind};

    #[test]
    fn spans_become_a_tree_with_siblings_in_the_order_of_their_starts() {
        let mut root = span(1, Some(99), "GET /files/");
        root.kind = SpanKind::Server;
        root.status.code = StatusCode::Error;
        let (mut late, mut early) = (span(2, Some(1), "late"), span(3, Some(1), "early"));
        (late.start_unix_nano, early.start_unix_nano) = (30, 20);
        let leaf = span(4, Some(3), "leaf");
        let mut trace = Trace::new([late, leaf, early, root].map(Arc::new), &[span_id(99)]);
        assert!(trace.attach(Arc::new(record(Some(1), Some(4)))));
        assert!(trace.orphans.is_empty() && trace.cycles.is_empty());
        assert_eq!(
            trace.to_string(),
            "SERVER GET /files/  Error  0.00 ms\n├─ INTERNAL early  0.00 ms\n│  └─ INTERNAL leaf  0.00 ms  1 log record\n\
             └─ INTERNAL late  0.00 ms\n"
        );
    }

    #[test]
    fn an_orphan_is_a_root_that_names_its_missing_parent() {
        let trace = Trace::new([Arc::new(span(1, None, "root")), Arc::new(span(2, Some(7), "lost"))], &[span_id(99)]);
        assert_eq!(trace.orphans.len(), 1);
        assert_eq!(
            trace.orphans[0].to_string(),
            "INTERNAL \"lost\" (0000000000000002) hangs on 0000000000000007, which was not received"
        );
        assert_eq!(trace.roots().len(), 2);
        assert!(trace.to_string().contains("lost  0.00 ms  orphan: parent 0000000000000007 was not received"));
    }

    #[test]
    fn a_span_exported_twice_and_two_spans_with_one_id_are_told_apart() {
        let (first, mut again, mut other) = (span(1, None, "a"), span(1, None, "a"), span(1, None, "b"));
        (again.arrival.seq, other.arrival.seq) = (5, 6);
        let trace = Trace::new([first, again, other].map(Arc::new), &[]);
        assert_eq!(trace.len(), 1);
        assert_eq!(trace.duplicates.iter().map(|twice| twice.identical).collect::<Vec<_>>(), [true, false]);
        assert!(trace.duplicates[1].to_string().contains("two spans have the id"));
    }

    #[test]
    fn a_cycle_is_named_and_every_span_of_it_is_still_drawn() {
        let spans = [span(1, Some(2), "a"), span(2, Some(1), "b"), span(3, Some(2), "c"), span(4, Some(4), "self")];
        let trace = Trace::new(spans.map(Arc::new), &[]);
        assert_eq!(trace.cycles.len(), 2);
        assert_eq!(trace.rows().len(), 4);
        assert_eq!(trace.root_of(trace.position(trace_id(1), span_id(3)).unwrap()), trace.roots()[1]);
    }

    #[test]
    fn a_record_that_names_no_span_of_the_tree_is_not_attached() {
        let mut trace = Trace::new([Arc::new(span(1, None, "a"))], &[]);
        assert!(!trace.attach(Arc::new(record(Some(2), Some(1)))));
        assert!(!trace.attach(Arc::new(record(None, None))));
    }

    #[test]
    fn the_same_span_id_in_another_trace_is_not_a_parent() {
        let mut foreign = span(2, Some(1), "foreign");
        foreign.trace_id = trace_id(9);
        let trace = Trace::new([Arc::new(span(1, None, "a")), Arc::new(foreign)], &[]);
        assert_eq!((trace.roots().len(), trace.orphans.len()), (2, 1));
    }
}
