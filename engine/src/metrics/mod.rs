//! What a shard counts: owns its counters and latency histograms, and the snapshot of them that the admin listener asks
//! for. Never shared: a shard counts in plain cells, and the label sets are closed, so memory is bounded.

mod exemplars;
mod labels;
mod latency;
mod text;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use mcp_protocol::mcpb::FrameKind;
use mcp_shard_store::redis::Health;
use mcp_shard_store::stats::{ClientStats, LimiterStats, SessionStats};

use exemplars::{Exemplar, Exemplars};
pub(crate) use exemplars::{Took, TraceId, Traced};
pub(crate) use labels::{
    AuthFailure, ChannelEvent, Direction, Handshake, OrphanResult, PeerKind, PeerResult, Protocol, RateScope,
    Rejection, RequestLabels, Retried, Shed, UpstreamLabels,
};
use labels::{LabelHasher, known_status};
use latency::{BUCKETS, Latency};
pub(crate) use text::{EndpointFacts, Facts, Format, render};

/// Label sets of requests that a shard tells apart, some 170 bytes each; a hundred servers with all that clients do with
/// them stay below. Those beyond count as other methods of no server.
const MAX_REQUEST_SETS: usize = 8_192;

/// What is counted per label set.
type LabelMap<K, V> = HashMap<K, V, BuildHasherDefault<LabelHasher>>;

/// What is counted of requests with the same labels.
#[derive(Clone, Copy, Default)]
struct Requests {
    answered: u64,
    latency: Latency,
}

/// One shard's counters.
#[derive(Default)]
pub(crate) struct Metrics {
    connections_active: [Cell<u64>; Protocol::ALL.len()],
    connections_total: [Cell<u64>; Protocol::ALL.len()],
    rejections: [Cell<u64>; Rejection::LABELS.len()],
    handshakes: [Cell<u64>; Handshake::LABELS.len()],
    refusals: RefCell<HashMap<&'static str, u64>>,
    shed: [Cell<u64>; Shed::LABELS.len()],
    rate_limited: [Cell<u64>; RateScope::LABELS.len()],
    auth_failures: [Cell<u64>; AuthFailure::LABELS.len()],
    frame_errors: RefCell<HashMap<&'static str, u64>>,
    h2_errors: RefCell<HashMap<&'static str, u64>>,
    frames: [[Cell<u64>; FrameKind::ALL.len()]; Direction::LABELS.len()],
    frame_bytes: [Cell<u64>; Direction::LABELS.len()],
    ws_messages: [Cell<u64>; Direction::LABELS.len()],
    ws_closes: RefCell<HashMap<&'static str, u64>>,
    peer_messages: [[Cell<u64>; PeerResult::LABELS.len()]; Direction::LABELS.len()],
    peer_connections: [Cell<u64>; PeerKind::LABELS.len()],
    orphans: [Cell<u64>; OrphanResult::LABELS.len()],
    requests: RefCell<LabelMap<RequestLabels, Requests>>,
    exemplars: Exemplars,
    in_flight: Cell<u64>,
    upstream: RefCell<LabelMap<UpstreamLabels, Latency>>,
    channel_events: RefCell<HashMap<u16, [u64; ChannelEvent::LABELS.len()]>>,
    /// By server and result.
    retries: RefCell<HashMap<(u16, usize), u64>>,
    /// By server and index into [`mcp_protocol::mcp::METHOD_LABELS`].
    missing: RefCell<LabelMap<(u16, u8), u64>>,
    lists_from_memory: RefCell<LabelMap<u16, u64>>,
    lag_us: Cell<u64>,
    queue_delay_us: Cell<u64>,
}

fn add(cell: &Cell<u64>, by: u64) {
    cell.set(cell.get().wrapping_add(by));
}

impl Metrics {
    pub(crate) fn connection_opened(&self, protocol: Protocol) {
        add(&self.connections_active[protocol as usize], 1);
        add(&self.connections_total[protocol as usize], 1);
    }

    pub(crate) fn connection_closed(&self, protocol: Protocol) {
        add(&self.connections_active[protocol as usize], u64::MAX);
    }

    /// A connection goes on in another protocol than the one that it was counted under when it was accepted.
    pub(crate) fn connection_turned(&self, from: Protocol, to: Protocol) {
        self.connection_closed(from);
        self.connection_opened(to);
    }

    pub(crate) fn rejected(&self, reason: Rejection) {
        add(&self.rejections[reason as usize], 1);
    }

    pub(crate) fn handshake(&self, result: Handshake) {
        add(&self.handshakes[result as usize], 1);
    }

    /// A request that the gateway answered by itself with an error; `reason` is one of the error table's labels.
    pub(crate) fn refused(&self, reason: &'static str) {
        *self.refusals.borrow_mut().entry(reason).or_default() += 1;
    }

    /// A server's part is missing from what all were asked; `method` is an index into [`mcp_protocol::mcp::METHOD_LABELS`].
    pub(crate) fn missing(&self, server: u16, method: u8) {
        *self.missing.borrow_mut().entry((server, method)).or_default() += 1;
    }

    /// A server's list was answered without asking it.
    pub(crate) fn list_from_memory(&self, server: u16) {
        *self.lists_from_memory.borrow_mut().entry(server).or_default() += 1;
    }

    /// A request that was refused for lack of capacity.
    pub(crate) fn shed(&self, why: Shed) {
        add(&self.shed[why as usize], 1);
    }

    /// A request that was one too many.
    pub(crate) fn rate_limited(&self, scope: RateScope) {
        add(&self.rate_limited[scope as usize], 1);
    }

    /// Somebody was not who is asked for.
    pub(crate) fn auth_failed(&self, who: AuthFailure) {
        add(&self.auth_failures[who as usize], 1);
    }

    /// A frame that broke the binary protocol; `kind` is one of the codec's labels.
    pub(crate) fn frame_error(&self, kind: &'static str) {
        *self.frame_errors.borrow_mut().entry(kind).or_default() += 1;
    }

    /// An HTTP/2 connection that was ended for what its client did; `reason` is the name of the error code told to it.
    pub(crate) fn h2_error(&self, reason: &'static str) {
        *self.h2_errors.borrow_mut().entry(reason).or_default() += 1;
    }

    /// A whole frame of `bytes`, its header included.
    pub(crate) fn frame(&self, direction: Direction, kind: FrameKind, bytes: usize) {
        // The kinds' numbers begin with 1.
        add(&self.frames[direction as usize][kind as usize - 1], 1);
        add(&self.frame_bytes[direction as usize], bytes as u64);
    }

    /// A text message of a WebSocket.
    pub(crate) fn ws_message(&self, direction: Direction) {
        add(&self.ws_messages[direction as usize], 1);
    }

    /// A close frame that was sent; `reason` is one of the door's labels.
    pub(crate) fn ws_closed(&self, reason: &'static str) {
        *self.ws_closes.borrow_mut().entry(reason).or_default() += 1;
    }

    /// A message that was sent to its session's owner, or came to this one.
    pub(crate) fn peer_message(&self, direction: Direction, result: PeerResult) {
        add(&self.peer_messages[direction as usize][result as usize], 1);
    }

    pub(crate) fn peer_connected(&self, kind: PeerKind) {
        add(&self.peer_connections[kind as usize], 1);
    }

    pub(crate) fn peer_disconnected(&self, kind: PeerKind) {
        add(&self.peer_connections[kind as usize], u64::MAX);
    }

    pub(crate) fn exchange_started(&self) {
        add(&self.in_flight, 1);
    }

    pub(crate) fn exchange_ended(&self) {
        add(&self.in_flight, u64::MAX);
    }

    /// An exchange that its client had left is over.
    pub(crate) fn orphan_ended(&self, result: OrphanResult) {
        add(&self.orphans[result as usize], 1);
    }

    /// A message has been answered, or its stream has ended; `took` is `None` for a stream that a client listens on, which
    /// takes as long as the client likes. `traced` looks for the request's trace, where that is wanted.
    pub(crate) fn request(
        &self,
        labels: RequestLabels,
        took: Option<Took>,
        traced: impl FnOnce() -> Option<Traced>,
    ) {
        let labels = RequestLabels { status: known_status(labels.status), ..labels };
        let labels = {
            let mut requests = self.requests.borrow_mut();
            let full = requests.len() >= MAX_REQUEST_SETS && !requests.contains_key(&labels);
            let labels = if full { labels.rest() } else { labels };
            let counted = requests.entry(labels).or_default();
            counted.answered += 1;
            if let Some(took) = took {
                counted.latency.record(took.us);
            }
            labels
        };
        if let Some(took) = took {
            self.exemplars.offer(labels, took, traced);
        }
    }

    pub(crate) fn upstream(&self, labels: UpstreamLabels, us: u64) {
        let labels = UpstreamLabels { status: known_status(labels.status), ..labels };
        self.upstream.borrow_mut().entry(labels).or_default().record(us);
    }

    /// Something happened to a server's channel, or on it.
    pub(crate) fn channel_event(&self, server: u16, event: ChannelEvent) {
        self.channel_events.borrow_mut().entry(server).or_default()[event as usize] += 1;
    }

    /// A request was sent to a server again, or was not for want of budget or time.
    pub(crate) fn retried(&self, server: u16, result: Retried) {
        *self.retries.borrow_mut().entry((server, result as usize)).or_default() += 1;
    }

    /// The longest turn since the last snapshot, in microseconds.
    pub(crate) fn turn(&self, us: u64) {
        self.lag_us.set(self.lag_us.get().max(us));
    }

    /// The longest that a ready socket waited for the shard since the last snapshot, in microseconds.
    pub(crate) fn queue_delay(&self, us: u64) {
        self.queue_delay_us.set(self.queue_delay_us.get().max(us));
    }

    /// An endpoint's place is another's now: what was counted there was not its own.
    pub(crate) fn forget_endpoint(&self, server: u16, endpoint: u16) {
        self.upstream.borrow_mut().retain(|labels, _| (labels.server, labels.endpoint) != (server, endpoint));
    }

    /// A server is at another place: its endpoints' places are others' now.
    pub(crate) fn forget_endpoints(&self, server: u16) {
        self.upstream.borrow_mut().retain(|labels, _| labels.server != server);
    }

    /// A server is gone.
    pub(crate) fn forget_server(&self, server: u16) {
        self.requests.borrow_mut().retain(|labels, _| labels.server != Some(server));
        self.exemplars.forget_server(server);
        self.upstream.borrow_mut().retain(|labels, _| labels.server != server);
        self.channel_events.borrow_mut().remove(&server);
        self.retries.borrow_mut().retain(|(of, _), _| *of != server);
        self.missing.borrow_mut().retain(|(of, _), _| *of != server);
        self.lists_from_memory.borrow_mut().remove(&server);
    }

    /// A copy that can leave the shard.
    pub(crate) fn snapshot(&self, shard: usize, gauges: Gauges) -> Snapshot {
        let read = |cells: &[Cell<u64>]| cells.iter().map(Cell::get).collect::<Vec<_>>();
        Snapshot {
            shard,
            gauges,
            connections_active: read(&self.connections_active),
            connections_total: read(&self.connections_total),
            rejections: read(&self.rejections),
            handshakes: read(&self.handshakes),
            refusals: self.refusals.borrow().clone(),
            shed: read(&self.shed),
            rate_limited: read(&self.rate_limited),
            auth_failures: read(&self.auth_failures),
            frame_errors: self.frame_errors.borrow().clone(),
            h2_errors: self.h2_errors.borrow().clone(),
            frames: self.frames.iter().map(|kinds| read(kinds)).collect(),
            frame_bytes: read(&self.frame_bytes),
            ws_messages: read(&self.ws_messages),
            ws_closes: self.ws_closes.borrow().clone(),
            peer_messages: self.peer_messages.iter().map(|results| read(results)).collect(),
            peer_connections: read(&self.peer_connections),
            orphans: read(&self.orphans),
            requests: self.requests.borrow().clone(),
            exemplars: self.exemplars.all(),
            in_flight: self.in_flight.get(),
            upstream: self.upstream.borrow().clone(),
            channel_events: self.channel_events.borrow().clone(),
            retries: self.retries.borrow().clone(),
            missing: self.missing.borrow().clone(),
            lists_from_memory: self.lists_from_memory.borrow().clone(),
            lag_us: self.lag_us.replace(0),
            queue_delay_us: self.queue_delay_us.replace(0),
        }
    }
}

/// What a shard measures at the moment of the snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    /// Per server: open channels, where there are any.
    pub(crate) channels: Vec<(u16, u64)>,
    pub(crate) sessions: u64,
    pub(crate) buffered_bytes: u64,
    /// Exchanges that go on without their client.
    pub(crate) orphans: u64,
    /// Requests that the shard takes at a time.
    pub(crate) in_flight_limit: u64,
    pub(crate) cpu_us: u64,
    /// Per (server, endpoint): connections in use and idle.
    pub(crate) pools: Vec<(u16, u16, u64, u64)>,
    /// Where something is kept in Redis.
    pub(crate) store: Option<StoreGauges>,
    /// Where requests are limited.
    pub(crate) limiter: Option<LimiterStats>,
}

/// Redis, as a shard sees it.
#[derive(Clone, Debug)]
pub(crate) struct StoreGauges {
    pub(crate) client: ClientStats,
    pub(crate) health: Health,
    /// Where sessions are kept there.
    pub(crate) sessions: Option<SessionStats>,
}

/// One shard's metrics at one moment.
pub(crate) struct Snapshot {
    shard: usize,
    gauges: Gauges,
    connections_active: Vec<u64>,
    connections_total: Vec<u64>,
    rejections: Vec<u64>,
    handshakes: Vec<u64>,
    refusals: HashMap<&'static str, u64>,
    shed: Vec<u64>,
    rate_limited: Vec<u64>,
    auth_failures: Vec<u64>,
    frame_errors: HashMap<&'static str, u64>,
    h2_errors: HashMap<&'static str, u64>,
    frames: Vec<Vec<u64>>,
    frame_bytes: Vec<u64>,
    ws_messages: Vec<u64>,
    ws_closes: HashMap<&'static str, u64>,
    peer_messages: Vec<Vec<u64>>,
    peer_connections: Vec<u64>,
    orphans: Vec<u64>,
    requests: LabelMap<RequestLabels, Requests>,
    exemplars: [Option<Exemplar>; BUCKETS],
    in_flight: u64,
    upstream: LabelMap<UpstreamLabels, Latency>,
    channel_events: HashMap<u16, [u64; ChannelEvent::LABELS.len()]>,
    retries: HashMap<(u16, usize), u64>,
    missing: LabelMap<(u16, u8), u64>,
    lists_from_memory: LabelMap<u16, u64>,
    lag_us: u64,
    queue_delay_us: u64,
}

impl Snapshot {
    /// Leaves out what was counted for other servers than these.
    pub(crate) fn keep_servers(&mut self, is_kept: impl Fn(u16) -> bool) {
        self.requests.retain(|labels, _| labels.server.is_none_or(&is_kept));
        for place in &mut self.exemplars {
            place.take_if(|exemplar| !exemplar.labels.server.is_none_or(&is_kept));
        }
        self.upstream.retain(|labels, _| is_kept(labels.server));
        self.channel_events.retain(|server, _| is_kept(*server));
        self.retries.retain(|(server, _), _| is_kept(*server));
        self.missing.retain(|(server, _), _| is_kept(*server));
        self.lists_from_memory.retain(|server, _| is_kept(*server));
    }

    /// Which shard this is of.
    pub(crate) fn shard(&self) -> usize {
        self.shard
    }
}
