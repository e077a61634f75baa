//! The alignment of a shape with a trace that leaves the least unexplained.

use std::collections::HashMap;

use super::Shape;
use crate::correlation::Trace;

/// What a line without a span costs, and a span without a line. Two that differ by more than both are not each other.
const GAP: f64 = 3.0;

/// Which line is which span.
#[derive(Debug, Default)]
pub(super) struct Alignment {
    /// Line and span.
    pub pairs: Vec<(usize, usize)>,
    /// Lines without a span, those below them included.
    pub missing: Vec<usize>,
    /// Spans without a line, those below them included.
    pub unexpected: Vec<usize>,
    /// Spans that a `...` allows, those below them included.
    pub absorbed: Vec<usize>,
}

pub(super) fn align(shape: &Shape, trace: &Trace) -> Alignment {
    let mut aligner = Aligner { shape, trace, costs: HashMap::new(), sizes: HashMap::new() };
    let mut alignment = Alignment::default();
    let mut pending = vec![(shape.roots.clone(), trace.roots().to_vec(), shape.open)];
    while let Some((lines, spans, open)) = pending.pop() {
        let (pairs, _) = aligner.assign(&lines, &spans, open);
        for (i, &line) in lines.iter().enumerate() {
            match pairs.iter().find(|(paired, _)| *paired == i) {
                Some(&(_, j)) => {
                    let node = &shape.nodes[line];
                    alignment.pairs.push((line, spans[j]));
                    pending.push((node.children.clone(), trace.nodes()[spans[j]].children.clone(), node.open));
                }
                None => alignment.missing.extend(below(line, |line| &shape.nodes[line].children)),
            }
        }
        for (j, &span) in spans.iter().enumerate() {
            if pairs.iter().all(|(_, paired)| *paired != j) {
                let left = if open { &mut alignment.absorbed } else { &mut alignment.unexpected };
                left.extend(below(span, |span| &trace.nodes()[span].children));
            }
        }
    }
    alignment.pairs.sort_unstable();
    alignment
}

/// A node and everything below it, parents first.
fn below<'a>(top: usize, children: impl Fn(usize) -> &'a [usize]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut pending = vec![top];
    while let Some(at) = pending.pop() {
        found.push(at);
        pending.extend(children(at).iter().rev());
    }
    found
}

struct Aligner<'a> {
    shape: &'a Shape,
    trace: &'a Trace,
    costs: HashMap<(usize, usize), f64>,
    sizes: HashMap<usize, f64>,
}

impl Aligner<'_> {
    /// What it costs to say that a line, with all below it, is a span. Goes as deep as the shape is written.
    fn cost(&mut self, line: usize, span: usize) -> f64 {
        if let Some(&known) = self.costs.get(&(line, span)) {
            return known;
        }
        let node = &self.shape.nodes[line];
        let own = node.matcher.distance(&self.trace.nodes()[span].span);
        let (_, children) = self.assign(&node.children, &self.trace.nodes()[span].children, node.open);
        self.costs.insert((line, span), own + children);
        own + children
    }

    fn size(&mut self, span: usize) -> f64 {
        if let Some(&known) = self.sizes.get(&span) {
            return known;
        }
        let size = below(span, |span| &self.trace.nodes()[span].children).len() as f64;
        self.sizes.insert(span, size);
        size
    }

    /// The cheapest pairs of lines and spans, by their positions in both slices, and what all of it costs.
    fn assign(&mut self, lines: &[usize], spans: &[usize], open: bool) -> (Vec<(usize, usize)>, f64) {
        if lines.is_empty() {
            let cost = if open { 0.0 } else { spans.iter().map(|&span| GAP * self.size(span)).sum() };
            return (Vec::new(), cost);
        }
        // A square of lines and gaps against spans and gaps: row i is a line or, behind the lines, a gap for a span.
        let (n, m) = (lines.len(), spans.len());
        let mut matrix = vec![vec![0.0; n + m]; n + m];
        for (i, &line) in lines.iter().enumerate() {
            let missing = GAP * below(line, |line| &self.shape.nodes[line].children).len() as f64;
            for (j, &span) in spans.iter().enumerate() {
                matrix[i][j] = self.cost(line, span);
            }
            matrix[i][m..].fill(missing);
        }
        for (j, &span) in spans.iter().enumerate() {
            let left = if open { 0.0 } else { GAP * self.size(span) };
            for row in &mut matrix[n..] {
                row[j] = left;
            }
        }
        let columns = cheapest(&matrix);
        let cost = columns.iter().enumerate().map(|(row, &column)| matrix[row][column]).sum();
        let pairs = columns.into_iter().enumerate().filter(|&(row, column)| row < n && column < m).collect();
        (pairs, cost)
    }
}

/// The column for each row that makes the sum least: the Hungarian algorithm with potentials, in cubic time.
fn cheapest(matrix: &[Vec<f64>]) -> Vec<usize> {
    let n = matrix.len();
    // Rows and columns count from 1 here; row and column 0 are the start of each augmenting path.
    let (mut of_row, mut of_column) = (vec![0.0; n + 1], vec![0.0; n + 1]);
    let mut row_at = vec![0; n + 1];
    for row in 1..=n {
        row_at[0] = row;
        let mut column = 0;
        let mut slack = vec![f64::INFINITY; n + 1];
        let mut before = vec![0; n + 1];
        let mut done = vec![false; n + 1];
        while row_at[column] != 0 {
            done[column] = true;
            let from = row_at[column];
            let (mut least, mut next) = (f64::INFINITY, 0);
            for to in 1..=n {
                if done[to] {
                    continue;
                }
                let reduced = matrix[from - 1][to - 1] - of_row[from] - of_column[to];
                if reduced < slack[to] {
                    (slack[to], before[to]) = (reduced, column);
                }
                if slack[to] < least {
                    (least, next) = (slack[to], to);
                }
            }
            for to in 0..=n {
                if done[to] {
                    of_row[row_at[to]] += least;
                    of_column[to] -= least;
                } else {
                    slack[to] -= least;
                }
            }
            column = next;
        }
        while column != 0 {
            row_at[column] = row_at[before[column]];
            column = before[column];
        }
    }
    let mut columns = vec![0; n];
    for column in 1..=n {
        columns[row_at[column] - 1] = column - 1;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_assignment_is_not_the_greedy_one() {
        // Greedy takes (0, 0) for 0 and pays 10 for (1, 1).
        assert_eq!(cheapest(&[vec![0.0, 1.0], vec![1.0, 10.0]]), [1, 0]);
        assert_eq!(cheapest(&[vec![4.0, 1.0, 3.0], vec![2.0, 0.0, 5.0], vec![3.0, 2.0, 2.0]]), [1, 0, 2]);
        assert!(cheapest(&[]).is_empty());
    }
}
