//! Owns the times and ports of the cluster in a box, and what they add up to. Periods of the guide and of `deploy/` are a
//! fifth to a tenth of theirs, so that a run takes minutes; what depends on the machine's speed is not.

use std::time::Duration;

use crate::redis::NODE_TIMEOUT_MS;

/// Zones, each with a pod, two nodes of Redis and a node of servers.
pub const ZONES: usize = 3;
/// HTTPS at pods and balancer, as in the guide.
pub const HTTPS_PORT: u16 = 8443;
/// MCPB at pods and balancer, as in the guide.
pub const MCPB_PORT: u16 = 9443;
/// The way between pods, as in `deploy/components/peers`.
pub const PEERS_PORT: u16 = 9444;

/// Between two readiness probes; 5 s in the guide.
pub const PROBE_PERIOD: Duration = Duration::from_millis(500);
/// How long a probe may take; 3 s in the guide. A handshake on a machine that does ten things at once is not scaled down as
/// far as the period.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Failures in a row until a pod gets no new connections, as in the guide.
pub const PROBE_FALL: u32 = 3;
/// Between two liveness probes; 10 s in the guide.
pub const LIVENESS_PERIOD: Duration = Duration::from_secs(1);
/// How long a liveness probe may take, as in the guide.
pub const LIVENESS_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures in a row until the kubelet kills a pod, as in the guide.
pub const LIVENESS_FALL: u32 = 3;

/// How long the balancer waits for a pod to take a connection until it tries the next one.
pub const BALANCER_CONNECT: Duration = Duration::from_secs(1);
/// After how long without a sign of life from a pod its connections are given up.
pub const BALANCER_DEAD: Duration = Duration::from_secs(2);

/// From SIGTERM to the drain: twice what the balancer needs to notice, which is [`PROBE_FALL`] periods.
pub const DRAIN_DELAY: Duration = Duration::from_secs(3);
/// From the drain to the process's end, at most. 25 s in `deploy/`.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// `cluster-node-timeout`; 5 s in `deploy/`.
pub const NODE_TIMEOUT: Duration = Duration::from_millis(NODE_TIMEOUT_MS);
/// From then until a replica has been elected: Redis waits for half a second and more, and may have to ask twice.
pub const ELECTION: Duration = Duration::from_secs(3);
/// In what time a gateway notices that a connection to Redis has died without a word (docs/redis.md), and asks another node
/// who is master now.
pub const STORE_DEAD: Duration = Duration::from_millis(2_500);

/// `servers.timeout`: after that, a call whose server is silent is answered with an error.
pub const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
/// `servers.connect_timeout`.
pub const SERVER_CONNECT: Duration = Duration::from_secs(1);
/// `servers.health.interval`.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// `servers.health.timeout`.
pub const HEALTH_TIMEOUT: Duration = Duration::from_millis(500);
/// `servers.health.unhealthy_after`.
pub const HEALTH_FALL: u32 = 3;

/// How long failures may begin after a master of Redis was lost.
pub const MASTER_WINDOW: Duration = NODE_TIMEOUT.saturating_add(ELECTION).saturating_add(STORE_DEAD);
/// How long they may after a zone was lost: a pod that the balancer still believes in may be given a connection, the call on
/// it may go to a server that is gone, and the session may be at a master that is gone.
pub const ZONE_WINDOW: Duration = PROBE_PERIOD
    .saturating_add(PROBE_TIMEOUT)
    .saturating_mul(PROBE_FALL)
    .saturating_add(BALANCER_DEAD)
    .saturating_add(HEALTH_INTERVAL.saturating_add(HEALTH_TIMEOUT).saturating_mul(HEALTH_FALL))
    .saturating_add(SERVER_TIMEOUT);
/// How long they may after a zone came back: its servers must be found well twice, its pod must find its stores again, and a
/// master's part is handed back.
pub const BACK_WINDOW: Duration = HEALTH_INTERVAL
    .saturating_add(HEALTH_TIMEOUT)
    .saturating_mul(2)
    .saturating_add(SERVER_TIMEOUT)
    .saturating_add(MASTER_WINDOW);
/// By when clients have heard that a killed gateway's connections have ended: what they send until then is on its way there.
pub const HEARD: Duration = Duration::from_secs(1);
/// What a machine that does ten things at once may add to either.
pub const SLACK: Duration = Duration::from_secs(10);
