//! Exemplars: owns, for each bucket of latencies, one request that fell into it and the trace that tells of it. Never more
//! than one per bucket, however many requests and series there are; never an allocation.

use std::cell::Cell;

use super::labels::RequestLabels;
use super::latency::{BUCKETS, bucket};

/// How long an exemplar stays before another may take its place, in microseconds: until then no request of its bucket is
/// searched for a trace. No longer than scrapes are apart, or the newest would not be on the page.
const STAYS_US: u64 = 1_000_000;

/// The id of a trace: 32 hexadecimal digits, as `traceparent` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(pub(crate) [u8; 32]);

impl TraceId {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A request's trace, and when it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traced {
    pub(crate) trace: TraceId,
    /// Milliseconds since 1970.
    pub(crate) unix_ms: u64,
}

/// When a request ended, and how long it took; both in microseconds, the former since the process started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) us: u64,
    pub(crate) ended_us: u64,
}

impl Took {
    pub(crate) fn between(started_us: u64, ended_us: u64) -> Self {
        Took { us: ended_us.saturating_sub(started_us), ended_us }
    }
}

/// A request, for all that took about as long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exemplar {
    pub(crate) labels: RequestLabels,
    pub(crate) traced: Traced,
    pub(crate) us: u64,
}

#[derive(Default)]
struct Place {
    /// When another exemplar may come, in microseconds since the process started.
    next_us: Cell<u64>,
    last: Cell<Option<Exemplar>>,
}

/// A shard's exemplars, by bucket.
#[derive(Default)]
pub(super) struct Exemplars([Place; BUCKETS]);

impl Exemplars {
    /// A request has ended; `traced` looks for its trace, and is asked only where an exemplar is due.
    pub(super) fn offer(&self, labels: RequestLabels, took: Took, traced: impl FnOnce() -> Option<Traced>) {
        let place = &self.0[bucket(took.us)];
        if took.ended_us < place.next_us.get() {
            return;
        }
        if let Some(traced) = traced() {
            place.next_us.set(took.ended_us + STAYS_US);
            place.last.set(Some(Exemplar { labels, traced, us: took.us }));
        }
    }

    /// A server is gone, and its number may be another's.
    pub(super) fn forget_server(&self, server: u16) {
        for place in &self.0 {
            place.last.set(place.last.get().filter(|exemplar| exemplar.labels.server != Some(server)));
        }
    }

    pub(super) fn all(&self) -> [Option<Exemplar>; BUCKETS] {
        std::array::from_fn(|number| self.0[number].last.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Protocol;

    const LABELS: RequestLabels =
        RequestLabels { server: None, method: 0, status: 200, protocol: Protocol::Http1 };

    fn traced(digit: u8) -> Option<Traced> {
        Some(Traced { trace: TraceId([digit; 32]), unix_ms: 5 })
    }

    #[test]
    fn a_bucket_has_one_which_stays_for_a_while() {
        let exemplars = Exemplars::default();
        let at = |ended_us| Took { us: 700, ended_us };
        exemplars.offer(LABELS, at(0), || None);
        exemplars.offer(LABELS, at(10), || traced(b'a'));
        exemplars.offer(LABELS, at(STAYS_US), || panic!("it is looked for too early"));
        assert_eq!(exemplars.all()[1].unwrap().traced.trace.text(), "a".repeat(32));
        exemplars.offer(LABELS, Took { us: 2, ended_us: 20 }, || traced(b'c'));
        exemplars.offer(LABELS, at(10 + STAYS_US), || traced(b'b'));
        let all = exemplars.all();
        assert_eq!(all[1].unwrap().traced.trace.text(), "b".repeat(32));
        assert_eq!(all[0].unwrap().us, 2);
        assert_eq!(all.iter().flatten().count(), 2);
    }

    #[test]
    fn a_server_that_is_gone_has_none() {
        let exemplars = Exemplars::default();
        for (server, us) in [(0, 2), (1, 700)] {
            let labels = RequestLabels { server: Some(server), ..LABELS };
            exemplars.offer(labels, Took { us, ended_us: 0 }, || traced(b'a'));
        }
        exemplars.forget_server(1);
        let servers: Vec<_> =
            exemplars.all().iter().flatten().map(|exemplar| exemplar.labels.server).collect();
        assert_eq!(servers, [Some(0)]);
    }

    #[test]
    fn the_label_set_is_as_short_as_openmetrics_demands() {
        let Traced { trace, .. } = traced(b'0').unwrap();
        assert!("trace_id".len() + trace.text().len() <= 128);
    }
}
