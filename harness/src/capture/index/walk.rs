//! The walk over an export request's bytes that makes the index. Nothing is built of what is walked over.

use super::{
    Checked, Group, LogRow, MetricRow, Rows, SpanRow,
    schema::{LOG_RECORD, METRIC, Message, RESOURCE_ITEMS, SCOPE_ITEMS, SPAN, Weight, field, message},
    wire::{DELIMITED, FIXED64, Malformed, delimited, fixed64, key, skip},
};
use crate::capture::Signal;

/// How many levels of messages may stand in a request: prost's limit.
const NESTING: u32 = 100;
/// What of it is left in the fields of a span, a log record or a metric.
const IN_ITEM: u32 = NESTING - 3;

/// Rows for which there is room from the beginning: what a body will hold is not known before.
const MOST_AT_ONCE: usize = 4096;

type Walked = Result<(), Malformed>;

/// Where in a request an item stands, and in what.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    length: u32,
    group: u32,
}

struct Walk<'a> {
    body: &'a [u8],
    groups: Vec<Group>,
    weight: Weight,
}

/// Walks over an `Export…ServiceRequest` of spans, log records or metrics.
pub(super) fn walk(signal: Signal, body: &[u8]) -> Result<Checked, Malformed> {
    let mut walk = Walk { body, groups: Vec::new(), weight: Weight::default() };
    let mut earliest = u64::MAX;
    let mut odd = Vec::new();
    let rows = match signal {
        Signal::Traces => {
            // More than most need, so that it does not grow; what is left over is given back.
            let mut rows = Vec::with_capacity((body.len() / 128).min(MOST_AT_ONCE));
            walk.request(|wire, place, weight| {
                let (row, end, is_odd) = span(wire, place, weight)?;
                earliest = earliest.min(end);
                if is_odd {
                    odd.push(rows.len());
                }
                rows.push(row);
                Ok(())
            })?;
            Rows::Spans(rows)
        }
        Signal::Logs => {
            let mut rows = Vec::new();
            walk.request(|wire, place, weight| {
                let (row, is_odd) = log_record(wire, place, weight)?;
                if is_odd {
                    odd.push(rows.len());
                }
                if row.time != 0 {
                    earliest = earliest.min(row.time);
                }
                rows.push(row);
                Ok(())
            })?;
            Rows::Logs(rows)
        }
        Signal::Metrics => {
            let mut rows = Vec::new();
            walk.request(|wire, place, weight| {
                message(&METRIC, wire, IN_ITEM, weight)?;
                rows.push(MetricRow { at: place.at, length: place.length, group: place.group });
                Ok(())
            })?;
            Rows::Metrics(rows)
        }
        Signal::Profiles => Rows::Profiles(0),
    };
    Ok(Checked { groups: walk.groups, rows, odd, earliest: (earliest != u64::MAX).then_some(earliest) })
}

impl<'a> Walk<'a> {
    /// Calls `item` for each item. All three requests have the same numbers: resources in 1, scopes in 2, items in 2.
    fn request(&mut self, mut item: impl FnMut(&'a [u8], Place, &mut Weight) -> Walked) -> Walked {
        let mut request = self.body;
        while !request.is_empty() {
            let Some(mut resource) = self.nested(None, 1, &mut request, NESTING)? else { continue };
            let in_resource = self.range(resource);
            while !resource.is_empty() {
                let Some(mut scope) = self.nested(Some(&RESOURCE_ITEMS), 2, &mut resource, NESTING - 1)? else {
                    continue;
                };
                let group = self.groups.len() as u32;
                let in_scope = self.range(scope);
                while !scope.is_empty() {
                    let Some(found) = self.nested(Some(&SCOPE_ITEMS), 2, &mut scope, NESTING - 2)? else { continue };
                    self.weight.add(Weight::ITEM)?;
                    if self.groups.len() == group as usize {
                        self.groups.push(Group { resource: in_resource, scope: in_scope });
                    }
                    let (at, length) = self.range(found);
                    item(found, Place { at, length, group }, &mut self.weight)?;
                }
            }
        }
        Ok(())
    }

    /// The message in the next field, if that has this number; else the field is checked.
    #[inline(always)]
    fn nested(
        &mut self,
        of: Option<&'static Message>,
        wanted: u32,
        wire: &mut &'a [u8],
        depth: u32,
    ) -> Result<Option<&'a [u8]>, Malformed> {
        let (tag, wire_type) = key(wire)?;
        if tag == wanted {
            if wire_type != DELIMITED {
                return Err(Malformed::WireType);
            }
            self.weight.add(Weight::MESSAGE)?;
            return delimited(wire).map(Some);
        }
        match of {
            Some(of) => field(of, tag, wire_type, wire, depth, &mut self.weight)?,
            None => skip(tag, wire_type, wire, depth)?,
        }
        Ok(None)
    }

    /// Where some bytes of the body stand in it. A body is never as long as 4 GiB.
    fn range(&self, part: &[u8]) -> (u32, u32) {
        ((part.as_ptr() as usize - self.body.as_ptr() as usize) as u32, part.len() as u32)
    }
}

/// An id, or zeros for none; `odd` is set by what is neither an id nor absent.
fn id<const N: usize>(bytes: &[u8], odd: &mut bool) -> [u8; N] {
    match <[u8; N]>::try_from(bytes) {
        Ok(id) if id != [0; N] => id,
        _ => {
            *odd |= !bytes.is_empty();
            [0; N]
        }
    }
}

fn span(mut wire: &[u8], place: Place, weight: &mut Weight) -> Result<(SpanRow, u64, bool), Malformed> {
    let (mut trace_id, mut span_id, mut parent) = (&[][..], &[][..], &[][..]);
    let (mut start, mut end) = (0, 0);
    while !wire.is_empty() {
        // Of a field that comes twice the last one holds, as protobuf has it.
        match key(&mut wire)? {
            (1, DELIMITED) => trace_id = delimited(&mut wire)?,
            (2, DELIMITED) => span_id = delimited(&mut wire)?,
            (4, DELIMITED) => parent = delimited(&mut wire)?,
            (7, FIXED64) => start = fixed64(&mut wire)?,
            (8, FIXED64) => end = fixed64(&mut wire)?,
            (tag, wire_type) => field(&SPAN, tag, wire_type, &mut wire, IN_ITEM, weight)?,
        }
    }
    weight.add(trace_id.len() + span_id.len() + parent.len())?;
    let mut odd = false;
    let (trace_id, span_id, parent) = (id(trace_id, &mut odd), id(span_id, &mut odd), id(parent, &mut odd));
    odd |= trace_id == [0; 16] || span_id == [0; 8];
    let Place { at, length, group } = place;
    Ok((SpanRow { trace_id, span_id, parent, start, at, length, group, next: 0 }, end, odd))
}

fn log_record(mut wire: &[u8], place: Place, weight: &mut Weight) -> Result<(LogRow, bool), Malformed> {
    let (mut trace_id, mut span_id) = (&[][..], &[][..]);
    let (mut time, mut observed) = (0, 0);
    while !wire.is_empty() {
        match key(&mut wire)? {
            (1, FIXED64) => time = fixed64(&mut wire)?,
            (11, FIXED64) => observed = fixed64(&mut wire)?,
            (9, DELIMITED) => trace_id = delimited(&mut wire)?,
            (10, DELIMITED) => span_id = delimited(&mut wire)?,
            (tag, wire_type) => field(&LOG_RECORD, tag, wire_type, &mut wire, IN_ITEM, weight)?,
        }
    }
    weight.add(trace_id.len() + span_id.len())?;
    let mut odd = false;
    let (trace_id, span_id) = (id(trace_id, &mut odd), id(span_id, &mut odd));
    let time = if time == 0 { observed } else { time };
    let Place { at, length, group } = place;
    Ok((LogRow { trace_id, span_id, time, at, length, group, next: 0 }, odd))
}
