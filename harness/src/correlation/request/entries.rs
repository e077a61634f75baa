//! Where a request comes in: the spans that a process began for it.

use std::{collections::HashSet, sync::Arc};

use super::{FoundBy, REQUEST_ID, Search, Trees, USER_AGENT, is_ours};
use crate::telemetry::{Attributes, Span, SpanId, SpanKind, TraceId};

/// An entry span: nothing received stands above it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) span: Arc<Span>,
    /// `None` when nothing in its subtree says, else whether it says this request's.
    pub(super) request_id: Option<bool>,
    user_agent: Option<bool>,
    /// Whether it begins a trace of its own and links to the caller's span.
    linked: bool,
}

impl Entry {
    pub(super) fn contradicts(&self) -> bool {
        // The request id is unique and the User-Agent may be shared or rewritten, so the former outweighs the latter.
        self.request_id == Some(false) || (self.request_id.is_none() && self.user_agent == Some(false))
    }
}

impl Search<'_> {
    pub(super) fn entries(&self) -> (FoundBy, Vec<Arc<Span>>) {
        for &trace_id in &self.told_traces {
            let all = self.entries_of(trace_id);
            let possible: Vec<Entry> = all.iter().filter(|entry| !entry.contradicts()).cloned().collect();
            if possible.is_empty() {
                continue;
            }
            // A trace of its own belongs to one request entirely. One that others share needs a sign for each.
            let shared = possible.len() < all.len() || self.serves_several(&possible);
            let (by, entries) = if shared { self.narrow(possible) } else { (None, possible) };
            if !entries.is_empty() {
                let hangs =
                    |entry: &Entry| entry.span.parent_span_id.is_some_and(|id| self.remote_parents.contains(&id));
                let plain = if entries.iter().all(hangs) { FoundBy::RemoteParent } else { FoundBy::TraceId };
                return (by.unwrap_or(plain), entries.into_iter().map(|entry| entry.span).collect());
            }
        }
        let elsewhere: Vec<Entry> = self
            .traces_that_speak_of_it()
            .into_iter()
            .flat_map(|trace_id| self.entries_of(trace_id))
            .filter(|entry| {
                !entry.contradicts() && (entry.request_id.is_some() || entry.user_agent.is_some() || entry.linked)
            })
            .collect();
        if let (Some(by), entries) = self.narrow(elsewhere)
            && !entries.is_empty()
        {
            return (by, entries.into_iter().map(|entry| entry.span).collect());
        }
        if self.caller.is_some_and(|caller| !caller.sampled) {
            return (FoundBy::NotSampled, Vec::new());
        }
        let during: Vec<Arc<Span>> = self.candidates().into_iter().filter(|span| self.during(span)).collect();
        if during.len() == 1 || (self.options.exclusive && !during.is_empty()) {
            return (FoundBy::Window, during);
        }
        (FoundBy::Nothing, Vec::new())
    }

    /// Several entry spans in one trace are several requests when they do not overlap, or hang on the same caller.
    pub(super) fn serves_several(&self, entries: &[Entry]) -> bool {
        entries.len() > 1 && entries.iter().any(|entry| !self.during(&entry.span))
    }

    /// The entries that speak of this request, by the surest sign that any of them has.
    pub(super) fn narrow(&self, entries: Vec<Entry>) -> (Option<FoundBy>, Vec<Entry>) {
        let by = |sign: fn(&Entry) -> bool| entries.iter().filter(|entry| sign(entry)).cloned().collect::<Vec<_>>();
        let (found_by, chosen) =
            match (by(|entry| entry.request_id == Some(true)), by(|entry| entry.user_agent == Some(true))) {
                (ids, _) if !ids.is_empty() => return (Some(FoundBy::RequestId), ids),
                (_, agents) if !agents.is_empty() => (FoundBy::UserAgent, agents),
                _ => match by(|entry| entry.linked) {
                    links if !links.is_empty() => return (Some(FoundBy::Link), links),
                    _ => (FoundBy::Window, entries),
                },
            };
        let during: Vec<Entry> = chosen.iter().filter(|entry| self.during(&entry.span)).cloned().collect();
        match (found_by, during.is_empty()) {
            (_, false) => (Some(found_by), during),
            (FoundBy::UserAgent, true) => (Some(found_by), chosen),
            _ => (None, Vec::new()),
        }
    }

    pub(super) fn during(&self, span: &Span) -> bool {
        self.times.fit(span)
    }

    /// The entry spans of a trace: those without a parent, on a remote parent, and SERVER and CONSUMER spans whose
    /// parent never came. Other spans whose parent never came are orphans of some entry.
    pub(super) fn entries_of(&self, trace_id: TraceId) -> Vec<Entry> {
        let spans: Vec<&Arc<Span>> = self.capture.spans_of(trace_id).collect();
        let known: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
        let mut seen = HashSet::new();
        let hangs = |span: &Span| span.parent_span_id.is_some_and(|parent| self.remote_parents.contains(&parent));
        let own: Vec<&Arc<Span>> = spans.iter().copied().filter(|span| hangs(span)).collect();
        // A call that the service made while the request was in it, as its taker's name or its client's say: who made it never
        // came, so it is an orphan and no request of its own.
        let by_a_client = |span: &Span| {
            let said = USER_AGENT.iter().find_map(|key| span.attributes.str(key));
            is_ours(&self.delivery.user_agent) && said.is_some_and(|said| !is_ours(said))
        };
        let of_another = |span: &Span, own: &Span| {
            let names = span.resource.service_name().zip(own.resource.service_name());
            names.is_some_and(|(one, other)| one != other)
        };
        let called = |span: &Span| {
            own.iter().any(|own| {
                // Also behind its end: what it handed on may be taken later.
                let behind = span.start_unix_nano >= own.start_unix_nano;
                behind && (span.kind == SpanKind::Consumer || by_a_client(span) || of_another(span, own))
            })
        };
        let entry = |span: &&&Arc<Span>| match span.parent_span_id {
            None => true,
            Some(parent) if known.contains(&parent) => false,
            Some(_) => hangs(span) || (span.kind.takes_calls() && !called(span)),
        };
        let entries: Vec<Arc<Span>> =
            spans.iter().filter(entry).filter(|span| seen.insert(span.span_id)).map(|span| Arc::clone(span)).collect();
        let trees = Trees::new(&spans);
        entries
            .into_iter()
            .map(|span| {
                let below = trees.below(span.span_id);
                let (request_id, user_agent) = self.signs(&below);
                // No other request has the caller's span. Who hangs on it and was called by a client that is none of the
                // harness's was told of it by the service, which handed on the context that it was given itself.
                let handed_on = span.parent_span_id.is_some_and(|id| self.remote_parents.contains(&id));
                let foreign = |said: &str| is_ours(&self.delivery.user_agent) && !is_ours(said);
                let user_agent = user_agent.filter(|said| !handed_on || !foreign(said));
                let user_agent = user_agent.map(|said| said == self.delivery.user_agent);
                let linked = self.links_to_the_caller(&span);
                Entry { span, request_id, user_agent, linked }
            })
            .collect()
    }

    /// What the attributes of a tree say of the request, whether the request id is its own and the User-Agent, nearest to the
    /// entry first. CLIENT spans speak of requests of
    /// their own: `aws.request_id` there is that of S3.
    pub(super) fn signs<'s>(&self, tree: &'s [Arc<Span>]) -> (Option<bool>, Option<&'s str>) {
        let said = |keys: &[&str]| {
            tree.iter()
                .filter(|span| !matches!(span.kind, SpanKind::Client | SpanKind::Producer))
                .find_map(|span| keys.iter().find_map(|key| span.attributes.str(key)))
        };
        let invocation = self.delivery.invocation.as_ref();
        let request_id = invocation.and_then(|own| said(&REQUEST_ID).map(|said| said == own.request_id));
        let known = !self.delivery.user_agent.is_empty();
        (request_id, said(&USER_AGENT).filter(|_| known))
    }

    /// Whether a span that takes a call begins a trace, as at an edge, and says with a link of which request.
    pub(super) fn links_to_the_caller(&self, span: &Span) -> bool {
        let told = |trace: &str| self.told_traces.iter().any(|told| trace == told.to_string());
        let parent = |span: &str| self.remote_parents.iter().any(|parent| span == parent.to_string());
        span.kind == SpanKind::Server
            && span.parent_span_id.is_none()
            && span.links.iter().any(|link| told(&link.trace_id) && parent(&link.span_id))
    }

    /// Traces with a span that names the request id or the User-Agent, or that links to the caller's, in order of arrival.
    pub(super) fn traces_that_speak_of_it(&self) -> Vec<TraceId> {
        let request_id = self.delivery.invocation.as_ref().map(|own| own.request_id.as_str());
        let user_agent = Some(self.delivery.user_agent.as_str()).filter(|agent| !agent.is_empty());
        let speaks = |attributes: &Attributes, keys: &[&str], own: Option<&str>| {
            own.is_some_and(|own| keys.iter().any(|key| attributes.str(key) == Some(own)))
        };
        let mut seen = HashSet::new();
        let spans = self.capture.spans().since(self.since()).filter(|span| {
            !matches!(span.kind, SpanKind::Client | SpanKind::Producer)
                && (speaks(&span.attributes, &REQUEST_ID, request_id)
                    || speaks(&span.attributes, &USER_AGENT, user_agent)
                    || self.links_to_the_caller(span))
        });
        spans.map(|span| span.trace_id).filter(|&trace_id| seen.insert(trace_id)).collect()
    }

    /// Entry spans of every trace that do not speak of another request.
    pub(super) fn candidates(&self) -> Vec<Arc<Span>> {
        let mut seen = HashSet::new();
        let traces: Vec<TraceId> = self
            .capture
            .spans()
            .since(self.since())
            .map(|span| span.trace_id)
            .filter(|&trace_id| seen.insert(trace_id))
            .collect();
        let entries = traces.into_iter().flat_map(|trace_id| self.entries_of(trace_id));
        entries.filter(|entry| !entry.contradicts()).map(|entry| entry.span).collect()
    }
}
